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
        compared: Tensor | None = None,
    ) -> None:
        """Set up for a network.

        Args:
            config: Loss, optimiser, clipping.
            network: What is trained.
            flat: Its weights and gradients.
            compared: (T, C), from encoded targets to what the loss compares; none compares them
                as they are.
        """
        self.network = torch.compile(network, dynamic=True) if config.compile else network
        self.flat = flat
        self.loss = LOSSES[config.loss]
        self.compared = None if compared is None else compared.to(flat.weights.device)
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
        molecules = sum(len(batch.index) for batch in groups)
        total = torch.zeros((), device=self.flat.gradient.device)
        for batch in groups:
            predicted, true = self.network(batch.numbers, batch.positions), batch.targets
            if self.compared is not None:
                predicted, true = predicted @ self.compared, true @ self.compared
            terms = self.loss.pointwise(predicted, true)  # (B, T) or (B, C)
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
