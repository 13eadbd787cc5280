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

from qm9flow.config import Loss, TrainConfig, balance
from qm9flow.targets import TargetCodec

RMSE_FLOOR = 1e-12
"""Added to the mean squared error: sqrt has no finite slope at 0, so that a batch without error
would give NaN gradients."""

HUBER_DELTA = 1.0
"""In training standard deviations: where the Huber loss turns from quadratic to linear."""


def compared(config: TrainConfig, codec: TargetCodec) -> Tensor | None:
    """From encoded targets to what the loss compares.

    Args:
        config: Its weighting.
        codec: Its names and scales.

    Returns:
        (T, C), float32: a balanced loss compares encoded @ this, its columns the targets and the
        gap over their goals, the targets' mean weight 1; None where encoded targets are compared
        as they are.
    """
    if config.weighting == "equal":
        return None
    scale = torch.tensor(codec.scale)
    goals = balance(config.geometry)
    weights = scale / torch.tensor([goals[name] for name in codec.names], dtype=torch.float64)
    gap = torch.zeros_like(scale)
    homo, lumo = codec.names.index("homo"), codec.names.index("lumo")
    gap[lumo], gap[homo] = scale[lumo] / goals["gap"], -scale[homo] / goals["gap"]
    columns = torch.cat([torch.diag(weights), gap[:, None]], dim=1)
    return (columns / weights.mean()).float()


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
