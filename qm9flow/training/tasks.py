"""What a configuration says is to be learned."""

from collections.abc import Mapping

import torch
from torch import Tensor

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.refiner import make_refiner
from qm9flow.training.conformer_task import ConformerTask
from qm9flow.training.geometry_task import GeometryTask
from qm9flow.training.property_task import PropertyTask
from qm9flow.training.task import Task


def task_of(
    config: TrainConfig,
    dataset: Dataset,
    device: torch.device,
    *,
    refiner: Mapping[str, Tensor] | None = None,
) -> Task:
    """Load what is to be learned.

    Args:
        config: Its `targets` say what.
        dataset: All molecules.
        device: Where the training runs.
        refiner: Tensors of the one that `config.refiner` names, of the network's own widths.

    Returns:
        The task.

    Raises:
        ConfigError: The split has fewer molecules than asked for, or the refiner's tensors are
            another network's.
        CacheError: Geometries have not been made yet.
        DataError: A target is NaN or infinite.
    """
    if config.targets == "geometry":
        return GeometryTask(config, dataset, device)
    if config.targets == "conformer":
        return ConformerTask(config, dataset, device)
    made = None if refiner is None else make_refiner(config.model, refiner)
    return PropertyTask(config, dataset, device, made)
