"""Learning something beside properties, with a trunk like that of networks for properties."""

from collections.abc import Callable, Mapping, Sized

from torch import Tensor, nn

from qm9flow.config import DensityConfig, TrainConfig
from qm9flow.training.losses import LOSSES
from qm9flow.training.start import load_trunk
from qm9flow.training.task import Task


class TrunkTask(Task):
    """What is learned by a network that may start from the trunk of another one.

    Its terms are errors themselves: the loss is their mean.
    """

    def __init__(
        self,
        config: TrainConfig,
        make: Callable[[DensityConfig], nn.Module],
        train: Sized,
        validation: Sized,
    ) -> None:
        """Set up.

        Args:
            config: The training.
            make: Makes the network with fresh weights.
            train: Molecules to learn from.
            validation: Molecules that it is judged on.
        """
        assert isinstance(config.model, DensityConfig)
        self._make, self._model = make, config.model
        self.train_molecules, self.val_molecules = len(train), len(validation)
        self.loss = LOSSES["mae"]

    def build(self) -> nn.Module:
        """As in `Task`."""
        return self._make(self._model)

    def start(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
        """As in `Task`."""
        return load_trunk(network, tensors)
