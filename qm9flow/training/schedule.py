"""The learning rate of a step, warm-up times constant, cosine or plateau; and how much of the
training set an epoch sees."""

import math
from dataclasses import dataclass

from qm9flow.config import TrainConfig

PLATEAU_PATIENCE = 3
"""Epochs without a better validation score before the rate is halved."""
PLATEAU_FACTOR = 0.5
WARMUP_SHARE = 0.1
"""Largest share of the budget that may be warm-up: a short training, or one with large batches, has
fewer steps than `warmup_steps`, and would end before it reaches its learning rate."""
GROWTH = 3
"""What a training set grows by each time."""


@dataclass(frozen=True)
class Budget:
    """How far a training is on its way.

    Attributes:
        step: Optimiser steps done.
        total_steps: Steps of `max_epochs`.
        elapsed_seconds: Training time so far.
        total_seconds: Training time at which the last step ends; none means no limit.
    """

    step: int
    total_steps: int
    elapsed_seconds: float = 0.0
    total_seconds: float | None = None

    @property
    def share(self) -> float:
        """Share of the budget that is used, 0 to 1: of steps or of time, whichever is larger."""
        share = self.step / self.total_steps
        if self.total_seconds is not None:
            left = max(self.total_seconds, 1e-9)
            share = max(share, self.elapsed_seconds / left)
        return min(share, 1.0)


def molecules_of(epoch: int, config: TrainConfig, molecules: int) -> int:
    """Training molecules that an epoch sees: the first ones, as the set grows.

    Args:
        epoch: Counted from 1.
        config: Epochs and growth.
        molecules: Of the whole training set.

    Returns:
        molecules / 3^k, rounded up, where k counts those of max_epochs / 3, max_epochs / 9, ...
        (`growth` of them, rounded down) that the epoch does not lie beyond.
    """
    ahead = sum(epoch <= config.max_epochs // GROWTH**k for k in range(1, config.growth + 1))
    return -(-molecules // GROWTH**ahead)


def learning_rate(config: TrainConfig, budget: Budget, plateau_factor: float = 1.0) -> float:
    """The learning rate of the next step.

    Args:
        config: Rate, warm-up and schedule.
        budget: How far the training is.
        plateau_factor: What a plateau schedule has come down to.

    Returns:
        learning_rate * warm-up * schedule, where the warm-up rises linearly over
        `warmup_steps`, or over a tenth of the budget, of steps or of time, if that is over sooner.
    """
    rate = config.learning_rate * _warmed_up(config, budget)
    if config.schedule == "cosine":
        rate *= 0.5 * (1.0 + math.cos(math.pi * budget.share))
    elif config.schedule == "plateau":
        rate *= plateau_factor
    return rate


def _warmed_up(config: TrainConfig, budget: Budget) -> float:
    """How far the warm-up is, 0 to 1."""
    warmup_steps = min(config.warmup_steps, int(WARMUP_SHARE * budget.total_steps))
    if budget.step >= warmup_steps:
        return 1.0
    return min(1.0, max((budget.step + 1) / warmup_steps, budget.share / WARMUP_SHARE))


def plateau_after(factor: float, waited: int, *, is_best: bool) -> tuple[float, int]:
    """State of a plateau schedule after one more epoch.

    Args:
        factor: What the learning rate was multiplied with.
        waited: Epochs since the last better score or the last halving.
        is_best: Whether the epoch's validation score is the lowest so far.

    Returns:
        The new `factor` and `waited`.
    """
    if is_best:
        return factor, 0
    if waited + 1 >= PLATEAU_PATIENCE:
        return factor * PLATEAU_FACTOR, 0
    return factor, waited + 1
