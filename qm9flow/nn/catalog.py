"""The architectures, by name."""

from collections.abc import Callable, Sequence

from qm9flow.config import ModelConfig, MPNNConfig
from qm9flow.errors import ConfigError
from qm9flow.nn.contract import Network
from qm9flow.nn.mpnn import MPNN


def _mpnn(config: ModelConfig, targets: Sequence[str]) -> Network:
    assert isinstance(config, MPNNConfig)
    return MPNN(config, targets)


ARCHITECTURES: dict[str, Callable[[ModelConfig, Sequence[str]], Network]] = {
    "mpnn": _mpnn,
}


def build(config: ModelConfig, targets: Sequence[str]) -> Network:
    """Make a network with fresh weights.

    Weights come from torch's global generator: whoever wants the same ones again seeds it.

    Args:
        config: The architecture and its options.
        targets: Names of the targets, in the order of the outputs.

    Returns:
        The network, in float32 on the CPU.

    Raises:
        ConfigError: The catalogue has no such architecture.
    """
    if config.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(
            f"unknown architecture {config.architecture!r}; the architectures are {known}"
        )
    return ARCHITECTURES[config.architecture](config, targets)
