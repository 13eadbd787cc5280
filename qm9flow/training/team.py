"""Who computes the steps of a training: this process alone, or several, each its share.

All members of a team hold the same weights and take the same steps: gradients are summed over the
members before each, and the leader's clock decides on the learning rate and on the end. Only the
leader validates, yields events and keeps checkpoints; the others have nothing that could be lost,
and end with it. On a CPU two processes do nearly twice the work of one, where two threads inside
operations of this size gain a third.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from qm9flow.errors import TrainingError

PATIENCE = timedelta(days=7)
"""How long members that have joined wait for each other: the leader may rest between two epochs.
That one died is noticed at once, by its closed connection."""


class MemberLostError(TrainingError):
    """A process that takes part in a training has died."""


class Members(Protocol):
    """Who computes a training's steps.

    Attributes:
        share: The rank of this process among them, and how many there are.
    """

    share: tuple[int, int]

    def begin(self) -> None:
        """Begin an epoch together."""

    def agree(self, rate: float, *, is_last: bool) -> tuple[float, bool]:
        """What the leader has decided about a step.

        Args:
            rate: Learning rate, as this process would have it.
            is_last: Whether time is up after it, as this process would have it.

        Returns:
            The leader's.
        """

    def add_up(self, gradient: Tensor, mean: Tensor) -> Tensor:
        """Sum over the members.

        Args:
            gradient: (n,), of this process's molecules, becomes the sum.
            mean: (), this process's part of the mean.

        Returns:
            (), the sum.
        """


class Alone:
    """This process and no other."""

    share = (0, 1)

    def begin(self) -> None:
        """Nobody to wait for."""

    def agree(self, rate: float, *, is_last: bool) -> tuple[float, bool]:
        """Its own decision."""
        return rate, is_last

    def add_up(self, gradient: Tensor, mean: Tensor) -> Tensor:
        """Its own part, which is the whole."""
        return mean


ALONE = Alone()


class Team:
    """This process among others that are joined by torch's process group."""

    def __init__(self, store: dist.Store, rank: int, size: int) -> None:
        """Join; waits for the others.

        Args:
            store: Where they meet.
            rank: 0 for the leader.
            size: Members.
        """
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
        self.share = (rank, size)
        self._sums = torch.empty(0)

    def agree(self, rate: float, *, is_last: bool) -> tuple[float, bool]:
        """The leader's decision, told to all; raises as `begin`."""
        decision = torch.tensor([rate, float(is_last)], dtype=torch.float64)
        with _told_if_one_died():
            dist.broadcast(decision, src=0)
        rate, last = decision.tolist()
        return rate, bool(last)

    def add_up(self, gradient: Tensor, mean: Tensor) -> Tensor:
        """The sum over all members, in one message; raises as `begin`."""
        n = len(gradient)
        if len(self._sums) != n + 1:
            self._sums = torch.empty(n + 1)
        self._sums[:n], self._sums[n] = gradient, mean
        with _told_if_one_died():
            dist.all_reduce(self._sums)
        gradient.copy_(self._sums[:n])
        return self._sums[n].clone()

    def begin(self) -> None:
        """Wait for each other.

        Raises:
            MemberLostError: One has died.
        """
        with _told_if_one_died():
            dist.barrier()


@contextmanager
def _told_if_one_died() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise MemberLostError("a process that took part in the training has ended") from error
