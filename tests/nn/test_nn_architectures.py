"""The suite, for each architecture of the catalogue."""

import numpy as np
import pytest
import torch
from network_suite import MOLECULES, NetworkSuite, assert_same, pad
from pyg_twins import mpnn_on_pyg, schnet_on_pyg

from qm9flow.config import (
    MODEL_CONFIGS,
    DensityConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
)
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.nn.catalog import ARCHITECTURES, build
from qm9flow.nn.contract import Network, PropertyModel
from qm9flow.nn.schnet import SchNet
from qm9flow.targets import TargetCodec


class TestDensity(NetworkSuite):
    config = DensityConfig(layers=2, hidden=16, vectors=16, channels=8, radial=6)
    overfit_steps = 300
    moments = ("mu", "r2")


class TestMPNN(NetworkSuite):
    config = MPNNConfig(conv_layers=2, fc_layers=2, hidden=32, edge_width=8, radial=16)
    twin = mpnn_on_pyg


class TestSchNet(NetworkSuite):
    config = SchNetConfig(interactions=2, hidden=32, radial=16)
    twin = schnet_on_pyg
    moments = ("mu", "r2")

    def test_atoms_are_what_pyg_makes_of_them(self, network: Network) -> None:
        """Before any readout, which might hide a difference."""
        assert isinstance(network, SchNet)
        numbers, positions = pad(MOLECULES)
        atoms = numbers > 0
        mine = network.represent(numbers, positions)[0][atoms]
        assert_same(mine, schnet_on_pyg(network).represent(numbers, positions)[atoms])


class TestPaiNN(NetworkSuite):
    config = PaiNNConfig(interactions=2, hidden=32, radial=16)
    moments = ("mu", "r2")


class TestPyGNNConv(NetworkSuite):
    config = PyGNNConvConfig(conv_layers=2, fc_layers=2, hidden=32, edge_width=8, radial=16)

    @pytest.mark.slow  # the same function and gradients as MPNN, at a tenth of its speed
    def test_overfits_twenty_molecules(self, dataset: Dataset) -> None:
        super().test_overfits_twenty_molecules(dataset)


class TestPyGSchNet(NetworkSuite):
    config = PyGSchNetConfig(hidden=32, interactions=2, radial=16)
    overfit_steps = 300


def test_every_architecture_is_tested_and_configured() -> None:
    tested = {suite.config.architecture for suite in NetworkSuite.__subclasses__()}
    assert tested == set(ARCHITECTURES) == set(MODEL_CONFIGS)


def test_unknown_architecture_names_the_known_ones() -> None:
    class Stranger(MPNNConfig):
        architecture = "stranger"

    with pytest.raises(ConfigError, match=r"stranger.*mpnn"):
        build(Stranger(), ("mu",))


def test_an_incomplete_network_cannot_be_made() -> None:
    class Nothing(Network):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()  # type: ignore[abstract]


@pytest.mark.parametrize("conv_layers", [1, 8])
@pytest.mark.parametrize("fc_layers", [1, 8])
def test_depths_count_all_layers(conv_layers: int, fc_layers: int) -> None:
    network = build(MPNNConfig(conv_layers, fc_layers, hidden=4, edge_width=3, radial=4), ("mu",))
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert sum(name.endswith("nn.2.weight") for name in shapes) == conv_layers
    dense = [shape for name, shape in shapes.items() if "readout" in name and len(shape) == 2]
    assert dense == [(4, 4)] * (fc_layers - 1) + [(1, 4)]


def test_model_gives_float64_physical_values() -> None:
    names = ("homo", "u0")
    references = torch.zeros(10, 2, dtype=torch.float64)
    references[6, 1], references[1, 1] = -1036.0, -13.5
    codec = TargetCodec(
        names,
        references.numpy(),
        np.zeros(2),
        torch.tensor([-6.5, 0.0]).double().numpy(),
        torch.tensor([0.6, 0.25]).double().numpy(),
    )
    network = build(MPNNConfig(1, 1, hidden=4, edge_width=3, radial=4), names)
    model = PropertyModel(network, codec)
    numbers = torch.tensor([[6, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    positions = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    values = model(numbers, positions)
    assert values.dtype == torch.float64
    counts = torch.zeros(2, 10)
    counts[0, 6], counts[0, 1], counts[1, 1] = 1, 4, 2
    encoded = network(numbers, positions).detach().numpy()
    expected = codec.decode(counts.numpy(), np.zeros(2), encoded)
    assert values.detach().numpy() == pytest.approx(expected, abs=1e-9)
    assert model.units == {"homo": "eV", "u0": "eV"}


def test_model_refuses_a_codec_of_other_targets() -> None:
    network = build(MPNNConfig(1, 1, hidden=4, edge_width=3, radial=4), ("homo",))
    with pytest.raises(ValueError, match=r"homo.*lumo"):
        PropertyModel(network, TargetCodec.identity(("lumo",)))
