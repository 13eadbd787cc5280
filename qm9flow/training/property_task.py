"""Learning properties from geometries."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from qm9flow.config import TrainConfig
from qm9flow.data.resident import Batch
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.refiner import Refiner
from qm9flow.training.loaded import LoadedData
from qm9flow.training.losses import LOSSES, LossFunction, compared
from qm9flow.training.start import load_weights
from qm9flow.training.task import Task


class PropertyTask(Task):
    """From geometries to encoded targets."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        device: torch.device,
        refiner: Refiner | None = None,
    ) -> None:
        """Load the molecules.

        Args:
            config: The training.
            dataset: All molecules.
            device: Where it runs.
            refiner: Refines geometries before the network sees them.

        Raises:
            ConfigError: The split has fewer molecules than asked for.
            DataError: A target is NaN or infinite.
        """
        self._config = config
        self._data = LoadedData.load(config, dataset, device, refiner)
        self.train_molecules = len(self._data.train)
        self.val_molecules = len(self._data.validation)
        self.loss = LOSSES[config.loss]
        columns = compared(config, self._data.codec)
        self._terms = PropertyTerms(self.loss, None if columns is None else columns.to(device))

    def build(self) -> nn.Module:
        """As in `Task`."""
        return build(self._config.model, self._data.codec.names)

    def start(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
        """As in `Task`."""
        load_weights(network, tensors)
        return True

    def batches(
        self, molecules: int, batch_size: int, generator: torch.Generator
    ) -> Iterator[list[Batch]]:
        """As in `Task`."""
        return self._data.train.first(molecules).batches(batch_size, generator)

    def terms(self, network: Callable[..., Tensor], group: Batch) -> Tensor:
        """As in `Task`."""
        return self._terms(network, group)

    def validate(self, network: nn.Module) -> dict[str, float]:
        """As in `Task`."""
        return self._data.validate(network)


class PropertyTerms:
    """The terms of a loss between predicted and true targets."""

    def __init__(self, loss: LossFunction, columns: Tensor | None = None) -> None:
        """Set up.

        Args:
            loss: Its pointwise part.
            columns: (T, C), from encoded targets to what the loss compares; none compares them as
                they are.
        """
        self._loss, self._columns = loss, columns

    def __call__(self, network: Callable[..., Tensor], group: Batch) -> Tensor:
        """Compare.

        Args:
            network: Predicts encoded targets.
            group: Molecules, with true ones.

        Returns:
            (B, T) or (B, C).
        """
        predicted, true = network(group.numbers, group.positions), group.targets
        if self._columns is not None:
            predicted, true = predicted @ self._columns, true @ self._columns
        return self._loss.pointwise(predicted, true)
