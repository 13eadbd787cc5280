"""Losses as an outer function of a mean over molecules and targets.

A step's batch is computed in groups of similar size. Because each loss is outer(mean of a
pointwise term), the groups' gradients of the mean simply add up, and the outer slope is applied to
the sum: exact, and only one group's activations are alive at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qm9flow.config import Loss, TrainConfig
from qm9flow.targets import TargetCodec

RMSE_FLOOR = 1e-12
"""Added to the mean squared error: sqrt has no finite slope at 0, so that a batch without error
would give NaN gradients."""

HUBER_DELTA = 1.0
"""In training standard deviations: where the Huber loss turns from quadratic to linear."""


GOALS = {
    "mu": 0.02,
    "alpha": 0.06,
    "homo": 0.03,
    "lumo": 0.025,
    "r2": 0.15,
    "zpve": 0.0012,
    "u0": 0.008,
    "u": 0.008,
    "g": 0.008,
    "cv": 0.025,
}
"""Mean absolute errors, in the targets' units, of the size that networks of the literature reach on
QM9 (SchNet, arXiv:1706.08566; PaiNN, arXiv:2102.03150): in a balanced loss an error that large
counts the same whatever the target. Only their ratios matter."""


def target_weights(config: TrainConfig, codec: TargetCodec) -> Tensor | None:
    """What each target's term is multiplied with.

    Args:
        config: Its weighting.
        codec: Its names and scales.

    Returns:
        (T,), float32, mean 1; None where all are equal.
    """
    if config.weighting == "equal":
        return None
    goals = torch.tensor([GOALS[name] for name in codec.names], dtype=torch.float64)
    weights = torch.tensor(codec.scale) / goals
    if config.loss == "rmse":  # whose terms are squares
        weights = weights.square()
    return (weights / weights.mean()).float()


@dataclass(frozen=True)
class LossFunction:
    """outer(mean over molecules and targets of a pointwise term).

    Attributes:
        pointwise: From predicted and true, both (B, T), the term of each, (B, T).
        outer: From the mean of the pointwise term, (), to the loss, ().
        slope: Derivative of `outer` at that mean, ().
    """

    pointwise: Callable[[Tensor, Tensor], Tensor]
    outer: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


def _squared(predicted: Tensor, true: Tensor) -> Tensor:
    return F.mse_loss(predicted, true, reduction="none")


def _absolute(predicted: Tensor, true: Tensor) -> Tensor:
    return F.l1_loss(predicted, true, reduction="none")


def _huber(predicted: Tensor, true: Tensor) -> Tensor:
    return F.huber_loss(predicted, true, reduction="none", delta=HUBER_DELTA)


def _root(mean: Tensor) -> Tensor:
    return torch.sqrt(mean + RMSE_FLOOR)


def _root_slope(mean: Tensor) -> Tensor:
    return 0.5 * torch.rsqrt(mean + RMSE_FLOOR)


def _same(mean: Tensor) -> Tensor:
    return mean


LOSSES: dict[Loss, LossFunction] = {
    "rmse": LossFunction(_squared, _root, _root_slope),
    "mae": LossFunction(_absolute, _same, torch.ones_like),
    "huber": LossFunction(_huber, _same, torch.ones_like),
}
