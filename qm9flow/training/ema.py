"""Averaged weights: an exponential moving average with a warm-up of its decay."""

import contextlib
from collections.abc import Iterator

from torch import Tensor


def decay_at(update: int, decay: float) -> float:
    """Decay of one update: small at first, so that the initial weights are soon forgotten.

    Args:
        update: Updates before this one.
        decay: What it rises to.

    Returns:
        min(decay, (1 + t) / (10 + t)).

    Source: the default of TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    return min(decay, (1 + update) / (10 + update))


class WeightAverage:
    """The moving average of a vector of weights, or the weights themselves.

    Attributes:
        values: (n,), the average; the same tensor as the weights when there is no decay.
        updates: Updates so far.
    """

    def __init__(self, weights: Tensor, decay: float | None) -> None:
        """Start at the weights as they are.

        Args:
            weights: (n,), changed in place by an optimiser.
            decay: Of the average; none means no average.
        """
        self.weights = weights.detach()
        self.decay = decay
        self.updates = 0
        self.values = self.weights if decay is None else self.weights.clone()

    def update(self) -> None:
        """Take note of a step: average = decay * average + (1 - decay) * weights."""
        if self.decay is not None:
            self.values.lerp_(self.weights, 1.0 - decay_at(self.updates, self.decay))
            self.updates += 1

    def restore(self, values: Tensor, updates: int) -> None:
        """Continue an average.

        Args:
            values: (n,), the average then.
            updates: Updates until then.
        """
        if self.decay is not None:
            self.values.copy_(values)
            self.updates = updates

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network use the average inside a block.

        Yields:
            Nothing.
        """
        if self.decay is None:
            yield
            return
        kept = self.weights.clone()
        self.weights.copy_(self.values)
        try:
            yield
        finally:
            self.weights.copy_(kept)
