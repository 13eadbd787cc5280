"""Predictions of many molecules, in batches of similar size."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.contract import PropertyModel
from qm9flow.training.mode import evaluating

BATCH_ATOMS = {"cpu": 2048, "cuda": 65_536}
"""Atoms of a batch, padding included: on a CPU as many as its caches like, on a GPU as many as
keep it busy."""


def predict_resident(model: nn.Module, molecules: ResidentMolecules, width: int) -> Tensor:
    """Predict molecules that lie on the model's device.

    Args:
        model: From numbers (B, N) and positions (B, N, 3) to (B, width); left in the mode, training
            or evaluation, in which it was.
        molecules: What to predict.
        width: Outputs of the model.

    Returns:
        (n, width), in the order of the geometries, in the model's dtype and on its device.
    """
    device = molecules.numbers.device
    parts, places = [], []
    with evaluating(model):
        for batch in molecules.ordered(BATCH_ATOMS[device.type]):
            parts.append(model(batch.numbers, batch.positions))
            places.append(batch.index)
        together = torch.cat(parts)
        values = torch.empty((len(molecules), width), dtype=together.dtype, device=device)
        values[torch.cat(places)] = together
    return values


def predict(
    model: PropertyModel,
    dataset: Dataset,
    indices: npt.NDArray[np.int64],
    device: torch.device | str = "cpu",
) -> npt.NDArray[np.float64]:
    """Predict molecules of a data set, in physical units.

    Args:
        model: The network with its codec; it is moved to the device.
        dataset: All molecules.
        indices: (n,), places in the dataset.
        device: Where to compute.

    Returns:
        (n, n_targets), in the order of `indices` and of `model.targets`, in the targets' units.
    """
    if len(indices) == 0:
        return np.zeros((0, len(model.targets)))
    molecules = ResidentMolecules.load(dataset, indices, None, device)
    values = predict_resident(model.to(device), molecules, len(model.targets))
    return values.cpu().numpy().astype(np.float64)
