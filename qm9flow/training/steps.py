"""One optimiser step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from qm9flow.config import TrainConfig
from qm9flow.training.flat import FlatParameters
from qm9flow.training.losses import LossFunction
from qm9flow.training.optimizers import Optimizers
from qm9flow.training.task import Group

_TINY = 1e-12


class Stepper:
    """Turns batches into weights. Never waits for the device.

    Attributes:
        optimizers: Move the weights.
        factor: What the latest step's accumulated gradient is to be multiplied with, ().
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        flat: FlatParameters,
        loss: LossFunction,
        terms: Callable[[Callable[..., Tensor], Any], Tensor],
    ) -> None:
        """Set up for a network.

        Args:
            config: Optimiser, clipping.
            network: What is trained.
            flat: Its weights and gradients.
            loss: Turns the mean of the terms into the loss.
            terms: (B, C) of a network and one group.
        """
        self.network = torch.compile(network, dynamic=True) if config.compile else network
        self.flat = flat
        self.loss, self.terms = loss, terms
        self.grad_clip = config.grad_clip
        self.optimizers = Optimizers(config, network, flat)
        self.factor = torch.ones((), device=flat.weights.device)

    def accumulate(self, groups: Sequence[Group]) -> Tensor:
        """Gradients of the mean pointwise term over all groups of a step.

        Args:
            groups: The molecules of the step.

        Returns:
            The mean, (). The gradient of the loss is `factor` times the accumulated one.
        """
        self.flat.gradient.zero_()
        molecules = sum(len(batch.index) for batch in groups)
        total = torch.zeros((), device=self.flat.gradient.device)
        for batch in groups:
            terms = self.terms(self.network, batch)  # (B, C)
            mean = terms.sum() / (molecules * terms.shape[1])
            mean.backward()
            total += mean.detach()
        self.factor = self.loss.slope(total)
        return total

    def apply(self, rate: float) -> None:
        """Clip what was accumulated and move the weights.

        Args:
            rate: Learning rate.
        """
        scale = self.factor
        if self.grad_clip is not None:
            norm = vector_norm(self.flat.gradient) * scale
            scale = scale * (self.grad_clip / (norm + _TINY)).clamp(max=1.0)
        self.flat.gradient.mul_(scale)
        self.optimizers.step(rate)
