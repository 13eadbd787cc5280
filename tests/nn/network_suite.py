"""Physics that every architecture of the catalogue must meet; inherit `NetworkSuite`.

A class that cannot meet a test overrides it with a skip that says why.
"""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from qm9flow.config import ModelConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import Network
from qm9flow.properties import LEARNED, TARGETS, get
from qm9flow.targets import TargetCodec

Molecule = tuple[Tensor, Tensor]

CUTOFF = 5.0
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
MOLECULES = [CARBON, HYDROGEN, cluster(9, 1), cluster(18, 2), cluster(29, 3)]


class NetworkSuite:
    """Inherit, and give a small configuration."""

    config: ModelConfig
    overfit_steps = 150

    @pytest.fixture
    def network(self) -> Network:
        torch.manual_seed(3)
        return build(self.config, LEARNED).double()

    def test_rotation_reflection_translation(self, network: Network) -> None:
        numbers, positions = pad(MOLECULES)
        expected = network(numbers, positions)
        for turn in (rotation(4), -rotation(5)):
            moved = positions @ turn.t() + torch.tensor([3.0, -2.0, 7.0])
            torch.testing.assert_close(network(numbers, moved), expected, rtol=1e-9, atol=1e-9)

    def test_permutation(self, network: Network) -> None:
        numbers, positions = cluster(18, 6)
        order = torch.randperm(18, generator=torch.Generator().manual_seed(7))
        torch.testing.assert_close(
            network(numbers[None, order], positions[None, order]),
            network(numbers[None], positions[None]),
            rtol=1e-9,
            atol=1e-9,
        )

    def test_padding_and_company_change_nothing(self, network: Network) -> None:
        together = network(*pad(MOLECULES, 31))
        alone = torch.cat([network(z[None], pos[None]) for z, pos in MOLECULES])
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)

    def test_what_stands_in_padding_is_not_read(self, network: Network) -> None:
        numbers, positions = pad(MOLECULES)
        junk = torch.where(numbers[..., None] > 0, positions, 1.5)
        torch.testing.assert_close(network(numbers, junk), network(numbers, positions))

    def test_far_molecules_add_up(self, network: Network) -> None:
        (z1, pos1), (z2, pos2) = cluster(9, 8), cluster(12, 9)
        both = network(torch.cat([z1, z2])[None], torch.cat([pos1, pos2 + 50.0])[None])
        apart = network(z1[None], pos1[None]) + network(z2[None], pos2[None])
        torch.testing.assert_close(both[:, EXTENSIVE], apart[:, EXTENSIVE], rtol=1e-9, atol=1e-9)

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
        (slope,) = torch.autograd.grad(values.sum(), distance)
        *steep, before, after = slope.abs().tolist()
        assert before < 1e-3 * max(steep)
        assert after == 0
        torch.testing.assert_close(values[-1], values[-2], rtol=0, atol=1e-6)

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

    def test_same_seed_same_weights(self, network: Network) -> None:
        torch.manual_seed(3)
        again = build(self.config, LEARNED).double().state_dict()
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
        twin = network.exportable().double()
        torch.testing.assert_close(twin(*batch), network(*batch), rtol=1e-9, atol=1e-9)

    def test_overfits_twenty_molecules(self, dataset: Dataset) -> None:
        indices = np.arange(20) * 15  # small ones: 5 to 13 atoms
        truth = dataset.truth()[indices][:, [TARGETS.index(name) for name in LEARNED]]
        counts = dataset.counts()[indices]
        encoded = TargetCodec.fit(LEARNED, counts, truth).encode(counts, truth)
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


def on_x_axis(distance: Tensor) -> Tensor:
    """Points on the x axis."""
    zero = torch.zeros_like(distance)
    return torch.stack([distance, zero, zero], dim=1)
