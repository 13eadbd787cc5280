"""Physics that every architecture of the catalogue must meet; inherit `NetworkSuite`.

A class that cannot meet a test overrides it with a skip that says why.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_model, save_model
from torch import Tensor

from qm9flow.config import ModelConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import Network, PropertyModel
from qm9flow.nn.molecular import SHORTEST
from qm9flow.properties import LEARNED, TARGETS, get
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.targets import TargetCodec

Molecule = tuple[Tensor, Tensor]

CUTOFF = 5.0
DIPOLE, EXTENT = LEARNED.index("mu"), LEARNED.index("r2")
EXTENSIVE = [i for i, name in enumerate(LEARNED) if get(name).is_extensive]


def cluster(size: int, seed: int) -> Molecule:
    """Random elements on a jittered grid: atoms keep 0.9 angstrom apart."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.tensor([1, 6, 7, 8, 9])[torch.randint(0, 5, (size,), generator=generator)]
    side = int(np.ceil(size ** (1 / 3)))
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 3).view(-1, 3)
    places = grid[torch.randperm(len(grid), generator=generator)[:size]]
    jitter = torch.rand(size, 3, generator=generator, dtype=torch.float64)
    return numbers, 1.5 * places + 0.3 * jitter


def pad(molecules: Sequence[Molecule], size: int | None = None) -> Molecule:
    """Molecules as one batch, zero-padded to `size` or to the largest."""
    size = size or max(len(numbers) for numbers, _ in molecules)
    numbers = torch.zeros(len(molecules), size, dtype=torch.int64)
    positions = torch.zeros(len(molecules), size, 3, dtype=molecules[0][1].dtype)
    for row, (z, pos) in enumerate(molecules):
        numbers[row, : len(z)] = z
        positions[row, : len(z)] = pos
    return numbers, positions


def rotation(seed: int) -> Tensor:
    """A random proper rotation."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    return q * torch.linalg.det(q)


CARBON: Molecule = (torch.tensor([6]), torch.zeros(1, 3, dtype=torch.float64))
HYDROGEN: Molecule = (
    torch.tensor([1, 1]),
    torch.tensor([[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]], dtype=torch.float64),
)
METHANE: Molecule = (
    torch.tensor([6, 1, 1, 1, 1]),
    0.63
    * torch.tensor(
        [[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64
    ),
)
CARBON_DIOXIDE: Molecule = (
    torch.tensor([8, 6, 8]),
    torch.tensor([[-1.16, 0, 0], [0, 0, 0], [1.16, 0, 0]], dtype=torch.float64),
)
FLUORIDE: Molecule = (
    torch.tensor([9, 1]),
    torch.tensor([[0.0, 0.0, 0.0], [0.92, 0.0, 0.0]], dtype=torch.float64),
)
MOLECULES = [CARBON, HYDROGEN, cluster(9, 1), cluster(18, 2), cluster(29, 3)]


SEEDS = st.integers(0, 2**32 - 1)
CLUSTERS = st.builds(cluster, st.integers(1, 14), SEEDS)
any_of_them = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    # the fixture is a network that no example changes; the suite runs for each architecture
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class NetworkSuite:
    """Inherit, and give a small configuration with a cutoff of `CUTOFF`.

    Attributes:
        config: Of the architecture.
        twin: Makes PyG's own network, with the same weights and the same contract; none where PyG
            has no such network.
        overfit_steps: Steps that suffice to learn twenty molecules by heart.
        moments: Targets made of charges and places, however far apart they are.
    """

    config: ModelConfig
    twin: Callable[[Network], torch.nn.Module] | None = None
    overfit_steps = 150
    moments: tuple[str, ...] = ()

    @pytest.fixture
    def network(self) -> Network:
        return self.make()

    def make(self) -> Network:
        """Untrained, but without layers that are zero before training: they would hide."""
        torch.manual_seed(3)
        network = build(self.config, LEARNED).double()
        for parameter in network.parameters():
            if parameter.ndim == 2 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
        return network

    @any_of_them
    @given(molecule=CLUSTERS, seed=SEEDS, is_mirrored=st.booleans())
    def test_rotation_reflection_translation(
        self, network: Network, molecule: Molecule, seed: int, is_mirrored: bool
    ) -> None:
        numbers, positions = pad([molecule, *MOLECULES[:3]])
        turn = -rotation(seed) if is_mirrored else rotation(seed)
        moved = positions @ turn.t() + torch.tensor([3.0, -2.0, 7.0])
        assert_same(network(numbers, moved), network(numbers, positions))

    @any_of_them
    @given(molecule=CLUSTERS, seed=SEEDS)
    def test_permutation(self, network: Network, molecule: Molecule, seed: int) -> None:
        numbers, positions = molecule
        order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))
        swapped = network(numbers[None, order], positions[None, order])
        assert_same(swapped, network(numbers[None], positions[None]))

    @any_of_them
    @given(molecules=st.lists(CLUSTERS, min_size=1, max_size=4), extra=st.integers(0, 3))
    def test_padding_and_company_change_nothing(
        self, network: Network, molecules: list[Molecule], extra: int
    ) -> None:
        together = network(*pad(molecules, max(len(z) for z, _ in molecules) + extra))
        alone = torch.cat([network(z[None], pos[None]) for z, pos in molecules])
        assert_same(together, alone)

    def test_all_sizes_of_qm9_in_one_batch(self, network: Network) -> None:
        together = network(*pad(MOLECULES, 31))
        alone = torch.cat([network(z[None], pos[None]) for z, pos in MOLECULES])
        assert_same(together, alone)

    def test_what_stands_in_padding_is_not_read(self, network: Network) -> None:
        numbers, positions = pad(MOLECULES)
        junk = torch.where(numbers[..., None] > 0, positions, 1.5)
        torch.testing.assert_close(network(numbers, junk), network(numbers, positions))

    @any_of_them
    @given(left=CLUSTERS, right=CLUSTERS)
    def test_far_molecules_add_up(self, network: Network, left: Molecule, right: Molecule) -> None:
        (z1, pos1), (z2, pos2) = left, right
        both = network(torch.cat([z1, z2])[None], torch.cat([pos1, pos2 + 50.0])[None])
        apart = network(z1[None], pos1[None]) + network(z2[None], pos2[None])
        assert_same(both[:, EXTENSIVE], apart[:, EXTENSIVE])

    @any_of_them
    @given(molecule=CLUSTERS)
    def test_a_centre_of_inversion_leaves_no_dipole(
        self, network: Network, molecule: Molecule
    ) -> None:
        """Atoms and their mirror images through a point, near enough to see each other."""
        self._require_moments()
        numbers, positions = molecule
        beside = positions + 0.8
        both = (numbers.repeat(2), torch.cat([beside, -beside]))
        dipoles = network(*pad([both, CARBON, HYDROGEN, METHANE, CARBON_DIOXIDE]))[:, DIPOLE]
        torch.testing.assert_close(dipoles, torch.zeros_like(dipoles), rtol=0, atol=1e-10)

    def test_a_polar_molecule_has_a_dipole(self, network: Network) -> None:
        self._require_moments()
        assert network(*pad([FLUORIDE]))[0, DIPOLE] > 1e-3

    @any_of_them
    @given(molecule=CLUSTERS)
    def test_moments_of_two_alike_far_apart_are_twice_those_of_one(
        self, network: Network, molecule: Molecule
    ) -> None:
        """Parallel dipoles add up; and each is neutral, so that r2 knows no distance of theirs."""
        self._require_moments()
        numbers, positions = molecule
        both = (numbers.repeat(2), torch.cat([positions, positions + 50.0]))
        together, alone = network(*pad([both, molecule]))
        squared = [(row[DIPOLE] + SHORTEST) ** 2 - SHORTEST**2 for row in (together, alone)]
        assert_same(squared[0], 4 * squared[1])
        assert_same(together[EXTENT], 2 * alone[EXTENT])

    def _require_moments(self) -> None:
        if not self.moments:
            pytest.skip("reads out mu and r2 as plain numbers")

    def test_no_gradient_across_molecules(self, network: Network) -> None:
        numbers, positions = pad(MOLECULES)
        positions.requires_grad_()
        (gradient,) = torch.autograd.grad(network(numbers, positions)[3].sum(), positions)
        assert gradient[3].abs().max() > 1e-6
        gradient[3] = 0
        assert gradient.abs().max() == 0

    def test_smooth_at_the_cutoff(self, network: Network) -> None:
        distance = torch.cat([torch.linspace(1, 4, 7), CUTOFF + torch.tensor([-1e-4, 1e-4])])
        distance = distance.double().requires_grad_()
        positions = torch.zeros(len(distance), 2, 3, dtype=torch.float64)
        positions = torch.stack([positions[:, 0], on_x_axis(distance)], dim=1)
        values = network(torch.tensor([[6, 8]]).expand(len(distance), 2), positions)
        for column, name in enumerate(LEARNED):
            (slope,) = torch.autograd.grad(values[:, column].sum(), distance, retain_graph=True)
            *steep, before, after = slope.tolist()
            assert abs(before - after) < 1e-3 * max(map(abs, steep))
            assert name in self.moments or after == 0
        torch.testing.assert_close(values[-1], values[-2], rtol=0, atol=1e-4)

    @any_of_them
    @given(seed=SEEDS)
    def test_continuous_where_an_atom_passes_the_cutoff(self, network: Network, seed: int) -> None:
        """Value and slope, in company of others: an atom leaves another's sight."""
        numbers, positions = cluster(7, seed)
        leaving = positions[0] + CUTOFF * rotation(seed)[0]
        numbers = torch.cat([numbers, torch.tensor([8])]).expand(2, 8)
        sides = [
            positions[0] + (leaving - positions[0]) * factor for factor in (1 - 1e-6, 1 + 1e-6)
        ]
        places = torch.stack([torch.cat([positions, side[None]]) for side in sides])
        values = network(numbers, places.requires_grad_())
        (slopes,) = torch.autograd.grad(values.sum(), places)
        torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-4)
        difference = (slopes[1] - slopes[0]).abs().max()
        assert difference < 1e-3 * slopes.abs().max()

    def test_symmetric_molecules_have_finite_gradients(self, network: Network) -> None:
        """Where what points somewhere adds up to nothing, no length of it is differentiated."""
        numbers, positions = pad([METHANE, CARBON_DIOXIDE, HYDROGEN])
        positions.requires_grad_()
        network(numbers, positions).square().sum().backward()
        assert positions.grad is not None
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in [positions.grad, *gradients])
        assert positions.grad[numbers == 0].abs().max() == 0

    def test_single_atoms_are_finite(self, network: Network) -> None:
        numbers = torch.tensor([[6], [1], [9]])
        positions = torch.zeros(3, 1, 3, dtype=torch.float64, requires_grad=True)
        values = network(numbers, positions)
        values.square().sum().backward()
        assert values.isfinite().all()
        assert positions.grad is not None
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert all(g.isfinite().all() for g in [positions.grad, *gradients])

    def test_state_dict_round_trip(self, network: Network) -> None:
        torch.manual_seed(99)
        other = build(self.config, LEARNED).double()
        batch = pad(MOLECULES)
        assert not torch.equal(other(*batch), network(*batch))
        other.load_state_dict(network.state_dict())
        assert torch.equal(other(*batch), network(*batch))

    def test_save_and_load_give_the_same_numbers(self, tmp_path: Path) -> None:
        torch.manual_seed(4)
        network = build(self.config, LEARNED).eval()
        save_model(network, tmp_path / "weights.safetensors")
        other = build(self.config, LEARNED).eval()
        load_model(other, tmp_path / "weights.safetensors")
        numbers, positions = pad(MOLECULES)
        assert torch.equal(other(numbers, positions.float()), network(numbers, positions.float()))

    def test_same_seed_same_weights(self, network: Network) -> None:
        again = self.make().state_dict()
        assert again.keys() == network.state_dict().keys()
        assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())

    def test_outputs_start_of_order_one(self, dataset: Dataset) -> None:
        torch.manual_seed(3)
        network = build(self.config, LEARNED)
        molecules = ResidentMolecules.load(dataset, np.arange(0, 130_000, 2_000), None, "cpu")
        with torch.no_grad():
            encoded = network(molecules.numbers, molecules.positions)
        assert 1e-3 < encoded.square().mean().sqrt() < 10

    def test_exportable_is_the_same_function(self, network: Network) -> None:
        batch = pad(MOLECULES)
        assert_same(network.exportable().double()(*batch), network(*batch))

    @pytest.mark.slow  # the exporter takes seconds
    def test_exported_graph_says_the_same(self, dataset: Dataset, tmp_path: Path) -> None:
        indices = np.arange(0, 130_000, 500)
        truth = dataset.truth()[indices][:, [TARGETS.index(name) for name in LEARNED]]
        extents = np.asarray(dataset.extents)[indices]
        codec = TargetCodec.fit(LEARNED, dataset.counts()[indices], extents, truth)
        model = PropertyModel(self.make().float(), codec)
        export_onnx(model, tmp_path / "model.onnx")
        parity = check_parity(model, tmp_path / "model.onnx", dataset)
        assert parity.difference[parity.worst] < 0.7 * parity.allowed[parity.worst]

    def test_matches_pyg(self, network: Network) -> None:
        if self.twin is None:
            pytest.skip("PyG has no such network")
        theirs = type(self).twin(network)
        numbers, positions = pad(MOLECULES)
        results = []
        for either in (network, theirs):
            places = positions.clone().requires_grad_()
            values = either(numbers, places)
            (slopes,) = torch.autograd.grad(values.square().sum(), places)
            results.append((values, slopes))
        (mine, my_slopes), (other, other_slopes) = results
        assert_same(mine, other)
        torch.testing.assert_close(my_slopes, other_slopes, rtol=1e-8, atol=1e-8)

    def test_overfits_twenty_molecules(self, dataset: Dataset) -> None:
        indices = np.arange(20) * 15  # small ones: 5 to 13 atoms
        truth = dataset.truth()[indices][:, [TARGETS.index(name) for name in LEARNED]]
        counts, extents = dataset.counts()[indices], np.asarray(dataset.extents)[indices]
        codec = TargetCodec.fit(LEARNED, counts, extents, truth)
        encoded = codec.encode(counts, extents, truth)
        molecules = ResidentMolecules.load(dataset, indices, encoded, "cpu")
        torch.manual_seed(0)
        network = build(self.config, LEARNED)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-2, total_steps=self.overfit_steps
        )
        for _ in range(self.overfit_steps):
            error = network(molecules.numbers, molecules.positions) - molecules.targets
            optimizer.zero_grad()
            error.square().mean().backward()
            optimizer.step()
            schedule.step()
        assert error.abs().mean() < 0.1, f"mean absolute error {error.abs().mean():.3f}"


def assert_same(value: Tensor, expected: Tensor) -> None:
    """To rounding in float64."""
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def on_x_axis(distance: Tensor) -> Tensor:
    """Points on the x axis."""
    zero = torch.zeros_like(distance)
    return torch.stack([distance, zero, zero], dim=1)
