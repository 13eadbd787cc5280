"""Networks in evaluation mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Ask a network without learning from it.

    Args:
        network: Left in the mode, training or evaluation, in which it was.

    Yields:
        Nothing.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        network.train(was_training)
