"""What a finished network says and knows of molecules, for what is fitted to it afterwards."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qm9flow.data.resident import Atoms, ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.trust import molecular_features
from qm9flow.properties import TARGETS, spread_names
from qm9flow.training.predict import BATCH_ATOMS

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a network says and knows of geometries.

    Attributes:
        values: (n, T), float64, in the targets' units.
        features: (n, 3 h), float32.
    """

    values: Tensor
    features: Tensor


def look(model: PropertyModel, atoms: Atoms, places: Indices) -> Seen:
    """Ask a network on the CPU.

    Args:
        model: The network with its codec; left in evaluation mode.
        atoms: Geometries.
        places: (n,), which of them.

    Returns:
        What it says and knows, in the order of `places`.
    """
    resident = ResidentMolecules.load(atoms, places, None, "cpu")
    values, features, order = [], [], []
    model.eval()
    with torch.inference_mode():
        for batch in resident.ordered(BATCH_ATOMS["cpu"]):
            hidden, vectors = model.network.represent(batch.numbers, batch.positions)
            values.append(model.decoded(batch.numbers, batch.positions, hidden, vectors))
            features.append(molecular_features(hidden, batch.numbers))
            order.append(batch.index)
    back = torch.cat(order).argsort()
    # clones: tensors made in inference mode cannot be learned from
    return Seen(torch.cat(values)[back].clone(), torch.cat(features)[back].clone())


def errors_of(model: PropertyModel, seen: Seen, dataset: Dataset, molecules: Indices) -> Floats:
    """Predicted minus true.

    Args:
        model: The network.
        seen: What it says of geometries.
        dataset: QM9.
        molecules: (n,), whose geometries these are.

    Returns:
        (n, S), of `properties.spread_names`, in the targets' units.
    """
    values = seen.values.numpy()
    columns = {name: values[:, i] for i, name in enumerate(model.targets)}
    if "gap" not in columns:
        columns["gap"] = columns["lumo"] - columns["homo"]
    truth = dataset.truth()[molecules]
    names = spread_names(model.targets)
    return np.column_stack([columns[name] - truth[:, TARGETS.index(name)] for name in names])
