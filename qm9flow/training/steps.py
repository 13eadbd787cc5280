"""One optimiser step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from qm9flow.config import TrainConfig
from qm9flow.data.resident import Batch
from qm9flow.training.flat import FlatParameters
from qm9flow.training.losses import LOSSES
from qm9flow.training.optimizers import Optimizers

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
        weights: Tensor | None = None,
    ) -> None:
        """Set up for a network.

        Args:
            config: Loss, optimiser, clipping.
            network: What is trained.
            flat: Its weights and gradients.
            weights: (T,), of the targets in the loss; none means equal ones.
        """
        self.network = torch.compile(network, dynamic=True) if config.compile else network
        self.flat = flat
        self.loss = LOSSES[config.loss]
        self.weights = None if weights is None else weights.to(flat.weights.device)
        self.grad_clip = config.grad_clip
        self.optimizers = Optimizers(config, network, flat)
        self.factor = torch.ones((), device=flat.weights.device)

    def accumulate(self, groups: Sequence[Batch]) -> Tensor:
        """Gradients of the mean pointwise term over all groups of a step.

        Args:
            groups: The molecules of the step.

        Returns:
            The mean, (). The gradient of the loss is `factor` times the accumulated one.
        """
        self.flat.gradient.zero_()
        count = sum(batch.targets.numel() for batch in groups)
        total = torch.zeros((), device=self.flat.gradient.device)
        for batch in groups:
            predicted = self.network(batch.numbers, batch.positions)
            terms = self.loss.pointwise(predicted, batch.targets)  # (B, T)
            mean = (terms if self.weights is None else terms * self.weights).sum() / count
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
