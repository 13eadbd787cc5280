"""Networks: one configuration an architecture."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from qm9flow.config.limits import between, check_limits


@dataclass(frozen=True)
class MPNNConfig:
    """The group's network: edge-conditioned message passing (`qm9flow.nn.mpnn`)."""

    architecture: ClassVar[str] = "mpnn"
    conv_layers: Annotated[int, between(1, 8)] = 4
    """Message-passing layers, 1 to 8."""
    fc_layers: Annotated[int, between(1, 8)] = 4
    """Dense layers of the readout, 1 to 8."""
    hidden: Annotated[int, between(2, 512)] = 64
    """Hidden nodes, 2 to 512."""
    edge_width: Annotated[int, between(1, 512)] = 16
    """Width of the edge network's hidden layer, which the work of a step is proportional to."""
    radial: Annotated[int, between(2, 256)] = 32
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: Annotated[float, between(0.5, 50.0)] = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class SchNetConfig:
    """Continuous filters over distances (`qm9flow.nn.schnet`)."""

    architecture: ClassVar[str] = "schnet"
    interactions: Annotated[int, between(1, 12)] = 3
    """Interaction blocks, 1 to 12."""
    fc_layers: Annotated[int, between(1, 8)] = 2
    """Dense layers of the readout, 1 to 8."""
    hidden: Annotated[int, between(2, 512)] = 64
    """Hidden nodes and filters, 2 to 512."""
    radial: Annotated[int, between(2, 256)] = 20
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: Annotated[float, between(0.5, 50.0)] = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class PaiNNConfig:
    """Scalars and vectors on each atom (`qm9flow.nn.painn`)."""

    architecture: ClassVar[str] = "painn"
    interactions: Annotated[int, between(1, 12)] = 3
    """Rounds of messages and updates, 1 to 12."""
    fc_layers: Annotated[int, between(1, 8)] = 2
    """Dense layers of the readout, 1 to 8."""
    hidden: Annotated[int, between(2, 512)] = 64
    """Hidden scalars, and as many vectors, 2 to 512."""
    radial: Annotated[int, between(2, 256)] = 20
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: Annotated[float, between(0.5, 50.0)] = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class DensityConfig:
    """The flagship: neighbours' densities, contracted on each atom (`qm9flow.nn.density`)."""

    architecture: ClassVar[str] = "density"
    layers: Annotated[int, between(1, 8)] = 3
    """Rounds of sums over neighbours, 1 to 8."""
    hidden: Annotated[int, between(2, 1024)] = 64
    """Scalars of an atom, 2 to 1024."""
    vectors: Annotated[int, between(2, 512)] = 64
    """Vectors of an atom, 2 to 512."""
    channels: Annotated[int, between(1, 512)] = 16
    """Numbers that an atom sends to its neighbours, 1 to 512."""
    radial: Annotated[int, between(1, 64)] = 12
    """Radial functions that they are summed under."""
    cutoff_angstrom: Annotated[float, between(0.5, 50.0)] = 5.0
    """Atoms further apart do not see each other."""
    heads: Annotated[int, between(0, 512)] = 32
    """Means over a molecule that HOMO and LUMO are read from, beside atomic values; 0 for none."""

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class PyGNNConvConfig(MPNNConfig):
    """The same network on PyTorch Geometric's own `NNConv` (`qm9flow.nn.pyg`)."""

    architecture: ClassVar[str] = "pyg_nnconv"


@dataclass(frozen=True)
class PyGSchNetConfig:
    """PyTorch Geometric's own `SchNet` (`qm9flow.nn.pyg`)."""

    architecture: ClassVar[str] = "pyg_schnet"
    hidden: Annotated[int, between(2, 512)] = 64
    """Hidden channels and filters, 2 to 512."""
    interactions: Annotated[int, between(1, 12)] = 4
    """Interaction blocks, 1 to 12."""
    radial: Annotated[int, between(2, 256)] = 32
    """Gaussians that a distance is expanded in."""
    cutoff_angstrom: Annotated[float, between(0.5, 50.0)] = 5.0
    """Atoms further apart do not see each other."""

    def __post_init__(self) -> None:
        check_limits(self)


ModelConfig = (
    DensityConfig | MPNNConfig | SchNetConfig | PaiNNConfig | PyGNNConvConfig | PyGSchNetConfig
)

MODEL_CONFIGS: dict[str, type[ModelConfig]] = {
    "density": DensityConfig,
    "mpnn": MPNNConfig,
    "schnet": SchNetConfig,
    "painn": PaiNNConfig,
    "pyg_nnconv": PyGNNConvConfig,
    "pyg_schnet": PyGSchNetConfig,
}
