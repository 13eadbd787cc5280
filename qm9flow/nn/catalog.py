"""The architectures, by name.

The makers of PyG's networks import PyG only when called: it takes seconds, and a training of
another network does not need it.
"""

from collections.abc import Callable, Sequence

from qm9flow.config import (
    DensityConfig,
    ModelConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
)
from qm9flow.errors import ConfigError
from qm9flow.nn.contract import Network
from qm9flow.nn.density import DensityNet
from qm9flow.nn.mpnn import MPNN
from qm9flow.nn.painn import PaiNN
from qm9flow.nn.schnet import SchNet


def _density(config: ModelConfig, targets: Sequence[str]) -> Network:
    assert isinstance(config, DensityConfig)
    return DensityNet(config, targets)


def _mpnn(config: ModelConfig, targets: Sequence[str]) -> Network:
    assert isinstance(config, MPNNConfig)
    return MPNN(config, targets)


def _schnet(config: ModelConfig, targets: Sequence[str]) -> Network:
    assert isinstance(config, SchNetConfig)
    return SchNet(config, targets)


def _painn(config: ModelConfig, targets: Sequence[str]) -> Network:
    assert isinstance(config, PaiNNConfig)
    return PaiNN(config, targets)


def _pyg_nnconv(config: ModelConfig, targets: Sequence[str]) -> Network:
    from qm9flow.nn.pyg import PyGNNConv

    assert isinstance(config, PyGNNConvConfig)
    return PyGNNConv(config, targets)


def _pyg_schnet(config: ModelConfig, targets: Sequence[str]) -> Network:
    from qm9flow.nn.pyg import PyGSchNet

    assert isinstance(config, PyGSchNetConfig)
    return PyGSchNet(config, targets)


ARCHITECTURES: dict[str, Callable[[ModelConfig, Sequence[str]], Network]] = {
    "density": _density,
    "mpnn": _mpnn,
    "schnet": _schnet,
    "painn": _painn,
    "pyg_nnconv": _pyg_nnconv,
    "pyg_schnet": _pyg_schnet,
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
