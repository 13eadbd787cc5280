"""Training from weights that another training left, not from fresh ones."""

import hashlib
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from qm9flow.config import TrainConfig
from qm9flow.errors import ConfigError
from qm9flow.nn.weights import misfit

ADDED = ("readout.heads.",)
"""Parts that change nothing before they are trained: a network can start from one without them."""


def weights_digest(weights: bytes) -> str:
    """What `TrainConfig.start` calls weights by.

    Args:
        weights: safetensors bytes.

    Returns:
        SHA-256, hexadecimal.
    """
    return hashlib.sha256(weights).hexdigest()


def starting_weights(config: TrainConfig, weights: bytes | None) -> dict[str, Tensor] | None:
    """The tensors that a training starts from.

    Args:
        config: Its `start` says which.
        weights: safetensors bytes, None if there are none at hand.

    Returns:
        Tensors by name; None for a training that starts from fresh weights.

    Raises:
        ConfigError: The weights are missing, others than the configuration's, or unreadable.
    """
    if config.start is None:
        if weights is not None:
            raise ConfigError("weights to start from were given, but start does not name them")
        return None
    if weights is None:
        raise ConfigError(
            f"this training starts from the weights with SHA-256 {config.start}: "
            "name the model that has them (`--start-from`)"
        )
    digest = weights_digest(weights)
    if digest != config.start:
        raise ConfigError(
            f"this training starts from the weights with SHA-256 {config.start}, "
            f"the ones at hand have {digest}"
        )
    try:
        return load(weights)
    except SafetensorError as error:
        raise ConfigError(f"the weights to start from are no safetensors: {error}") from error


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a network its weights; what may be added to a network (`ADDED`) may be missing.

    Args:
        network: Any network.
        tensors: By name, as in its `state_dict`.

    Raises:
        ConfigError: Another network's tensors.
    """
    expected = network.state_dict()
    fresh = {name: value for name, value in expected.items() if name.startswith(ADDED)}
    tensors = fresh | dict(tensors)
    if problem := misfit(expected, tensors):
        raise ConfigError(
            f"the weights to start from are of another network: {problem}; "
            "leave the network's options out, or start from fresh weights"
        )
    network.load_state_dict(tensors)
