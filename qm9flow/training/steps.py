"""One optimiser step."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from qm9flow.config import TrainConfig
from qm9flow.data.resident import Batch
from qm9flow.training.flat import FlatParameters
from qm9flow.training.losses import LOSSES

_TINY = 1e-12


def make_optimizer(config: TrainConfig, weights: nn.Parameter) -> torch.optim.Optimizer:
    """The optimiser of a training, fused: one pass over the weights.

    Args:
        config: Kind, rate and weight decay.
        weights: (n,), all weights of the network.

    Returns:
        The optimiser.
    """
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[config.optimizer](
        [weights], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )


class Stepper:
    """Turns batches into weights. Never waits for the device.

    Attributes:
        optimizer: Works on all weights as one tensor.
        factor: What the latest step's accumulated gradient is to be multiplied with, ().
    """

    def __init__(self, config: TrainConfig, network: nn.Module, flat: FlatParameters) -> None:
        """Set up for a network.

        Args:
            config: Loss, optimiser, clipping.
            network: What is trained.
            flat: Its weights and gradients.
        """
        self.network = network
        self.flat = flat
        self.loss = LOSSES[config.loss]
        self.grad_clip = config.grad_clip
        self.optimizer = make_optimizer(config, flat.weights)
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
            mean = self.loss.summed(predicted, batch.targets) / count
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
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state.

        Returns:
            Its tensors by name; after at least one step.
        """
        return dict(self.optimizer.state[self.flat.weights])

    def blank_state(self) -> dict[str, Tensor]:
        """What a state looks like.

        Returns:
            Tensors of the names, shapes and dtypes of `state`, whatever their values.
        """
        like = torch.zeros_like(self.flat.weights)
        return {"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue an optimiser.

        Args:
            state: What `state` gave.
        """
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": {0: dict(state)}, "param_groups": groups})
