"""What a training learns: its molecules, its network, and what it is judged by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from qm9flow.training.losses import LossFunction


class Group(Protocol):
    """Molecules of similar size, that are computed together.

    Attributes:
        index: (B,), one entry for each molecule.
    """

    @property
    def index(self) -> Tensor:
        """Places of the molecules."""


class Task(ABC):
    """One thing that can be learned.

    Attributes:
        train_molecules: How many there are to learn from.
        val_molecules: How many it is judged on.
        loss: Turns the mean of the terms into the loss.
    """

    train_molecules: int
    val_molecules: int
    loss: LossFunction

    @abstractmethod
    def build(self) -> nn.Module:
        """Make the network with fresh weights, on the CPU.

        Returns:
            The network; called with numbers and positions alone it answers, too.
        """

    @abstractmethod
    def start(self, network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
        """Give a network the weights that another training left.

        Args:
            network: From `build`.
            tensors: By name.

        Returns:
            Whether it can be judged as it is: whether all of its weights are among them.

        Raises:
            ConfigError: They are another network's.
        """

    @abstractmethod
    def batches(
        self, molecules: int, batch_size: int, generator: torch.Generator
    ) -> Iterator[list[Any]]:
        """One epoch.

        Args:
            molecules: It sees so many, the first ones.
            batch_size: Of an optimiser step.
            generator: Of the order.

        Yields:
            The groups of one step, each a `Group`.
        """

    @abstractmethod
    def terms(self, network: Callable[..., Tensor], group: Any) -> Tensor:
        """What the loss is the mean of.

        Args:
            network: As `build` made it, or compiled.
            group: From `batches`.

        Returns:
            (B, C), for each molecule of the group.
        """

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Judge a network.

        Args:
            network: As `build` made it.

        Returns:
            Metrics, `val/score` among them: lower is better.
        """
