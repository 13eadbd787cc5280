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
    if config.start is None and weights is not None:
        raise ConfigError("weights to start from were given, but start does not name them")
    return named_weights(config.start, weights, "starts from")


def named_weights(
    name: str | None, weights: bytes | None, what_for: str
) -> dict[str, Tensor] | None:
    """Weights that a configuration names.

    Args:
        name: Their SHA-256; None if it needs none.
        weights: safetensors bytes, None if there are none at hand.
        what_for: What the training does with them, in words.

    Returns:
        Tensors by name; None where it needs none.

    Raises:
        ConfigError: The weights are missing, others than the configuration's, or unreadable.
    """
    if name is None:
        return None
    said = f"this training {what_for} the weights with SHA-256 {name}"
    if weights is None:
        raise ConfigError(f"{said}: name the model that has them (`--start-from`)")
    digest = weights_digest(weights)
    if digest != name:
        raise ConfigError(f"{said}, the ones at hand have {digest}")
    try:
        return load(weights)
    except SafetensorError as error:
        raise ConfigError(f"{said}, which are no safetensors: {error}") from error


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


def load_trunk(network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Give a network what another one, perhaps for another purpose, has in common with it.

    Args:
        network: Any network.
        tensors: The other's, by name.

    Returns:
        Whether that is all of it.

    Raises:
        ConfigError: They have nothing in common, or differ in widths.
    """
    expected = network.state_dict()
    shared = {name: tensors[name] for name in expected.keys() & tensors.keys()}
    if not shared:
        raise ConfigError("the weights to start from have nothing in common with this network")
    if problem := misfit(expected, {**expected, **shared}):
        raise ConfigError(
            f"the weights to start from are of another network: {problem}; leave the network's "
            "options out, or start from fresh weights"
        )
    network.load_state_dict({**expected, **shared})
    return len(shared) == len(expected)
