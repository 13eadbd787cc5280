"""The networks that move atoms and that weigh conformers: symmetries, padding, where they start."""

import numpy as np
import pytest
import torch
from torch import Tensor

from qm9flow.config import DensityConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.choice import Choice
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.refiner import (
    NEAREST_ANGSTROM,
    NEIGHBOURS_ANGSTROM,
    ROUNDS,
    STRETCH_ANGSTROM,
    Refiner,
    is_sound,
)

SHAPE = DensityConfig(layers=2, hidden=12, vectors=6, channels=4, radial=6)
MOLECULES = (3, 100, 5_000, 60_000)


@pytest.fixture(scope="module")
def refiner() -> Refiner:
    """One that moves atoms by tenths of an angstrom, in float64."""
    torch.manual_seed(0)
    made = Refiner(SHAPE).double().eval()
    torch.nn.init.normal_(made.move.weight, std=0.2)
    torch.nn.init.normal_(made.gate.weight, std=0.2)
    return made


def atoms(dataset: Dataset, i: int) -> tuple[Tensor, Tensor]:
    molecule = dataset.molecule(i)
    return torch.from_numpy(molecule.numbers)[None], torch.from_numpy(molecule.positions)[None]


def rotation(seed: int, *, mirrored: bool) -> Tensor:
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    if (np.linalg.det(matrix) < 0) != mirrored:
        matrix[0] *= -1
    return torch.from_numpy(matrix)


@pytest.mark.parametrize("i", MOLECULES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_refined_atoms_turn_and_shift_with_the_molecule(
    dataset: Dataset, refiner: Refiner, i: int, mirrored: bool
) -> None:
    numbers, positions = atoms(dataset, i)
    turn, shift = rotation(i, mirrored=mirrored), torch.tensor([3.0, -1.0, 0.5])
    with torch.no_grad():
        before = refiner(numbers, positions)
        after = refiner(numbers, positions @ turn.T + shift)
    assert before.shape == (ROUNDS, *positions.shape)
    assert (before[-1] - positions).norm(dim=-1).max() > 0.01
    torch.testing.assert_close(after, before @ turn.T + shift, rtol=0, atol=1e-9)


@pytest.mark.parametrize("i", MOLECULES)
def test_the_order_of_atoms_does_not_matter(dataset: Dataset, refiner: Refiner, i: int) -> None:
    numbers, positions = atoms(dataset, i)
    order = torch.randperm(numbers.shape[1], generator=torch.Generator().manual_seed(i))
    with torch.no_grad():
        before = refiner(numbers, positions)
        after = refiner(numbers[:, order], positions[:, order])
    torch.testing.assert_close(after, before[:, :, order], rtol=0, atol=1e-9)


def test_padding_changes_nothing_and_stays_where_it_is(dataset: Dataset, refiner: Refiner) -> None:
    numbers, positions = atoms(dataset, 5_000)
    wide = torch.nn.functional.pad(numbers, (0, 4))
    far = torch.nn.functional.pad(positions, (0, 0, 0, 4))
    with torch.no_grad():
        alone, padded = refiner(numbers, positions), refiner(wide, far)
    torch.testing.assert_close(padded[:, :, : numbers.shape[1]], alone, rtol=0, atol=1e-9)
    assert (padded[:, :, numbers.shape[1] :] == 0).all()


def test_molecules_that_would_break_stay_as_they_are(dataset: Dataset) -> None:
    torch.manual_seed(2)
    wild = Refiner(SHAPE).double().eval()
    torch.nn.init.normal_(wild.move.weight, std=0.06)
    numbers, positions = (
        torch.nn.utils.rnn.pad_sequence(
            [atoms(dataset, i)[which][0] for i in (3, 9, 100, 5_000, 60_000)], batch_first=True
        )
        for which in (0, 1)
    )
    with torch.no_grad():
        raw, kept = wild(numbers, positions)[-1], wild.refined(numbers, positions)
    pairs = pair_mask(numbers > 0)
    given, found = pair_distances(positions, pairs), pair_distances(raw, pairs)
    is_stretched = ((found - given).abs() >= STRETCH_ANGSTROM) & (given <= NEIGHBOURS_ANGSTROM)
    breaks = (is_stretched | (found <= NEAREST_ANGSTROM)).any(dim=2).any(dim=1)
    assert 0 < breaks.sum() < len(breaks)
    torch.testing.assert_close(kept[breaks], positions[breaks], rtol=0, atol=0)
    torch.testing.assert_close(kept[~breaks], raw[~breaks], rtol=0, atol=0)


WATER = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]


@pytest.mark.parametrize(
    ("moved", "is_kept"),
    [
        ([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [-0.24, 0.93, 0.0]], True),
        ([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 1.6, 0.0]], False),  # parts
        ([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [0.3, 0.4, 0.0]], False),  # collides
        ([[0.0, 0.0, 0.0], [float("nan"), 0.0, 0.0], [-0.24, 0.93, 0.0]], False),
    ],
)
def test_neighbours_stay_neighbours(moved: list[list[float]], is_kept: bool) -> None:
    numbers = torch.ones(1, 3, dtype=torch.bool)
    assert bool(is_sound(numbers, torch.tensor([WATER]), torch.tensor([moved]))) == is_kept


def test_two_atoms_stay_where_they_are() -> None:
    atoms = torch.tensor([[True, True, False]])
    positions = torch.tensor([[[0.0, 0.0, 0.0], [0.95, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert not is_sound(atoms, positions, positions)


@pytest.mark.parametrize("far", [1e3, 1e20, np.nan])
def test_molecules_whose_atoms_would_fly_away_stay_as_they_are(
    dataset: Dataset, far: float
) -> None:
    torch.manual_seed(2)
    numbers, positions = atoms(dataset, 100)
    wild = Refiner(SHAPE).double().eval()
    torch.nn.init.constant_(wild.move.weight, far)
    with torch.no_grad():
        kept = wild.refined(numbers, positions)
    torch.testing.assert_close(kept, positions, rtol=0, atol=0)


def test_it_starts_by_moving_nearly_nothing_but_learns_everywhere(dataset: Dataset) -> None:
    torch.manual_seed(1)
    fresh = Refiner(SHAPE)
    numbers, positions = atoms(dataset, 60_000)
    found = fresh(numbers, positions.float())
    assert (found - positions.float()).abs().max() < 0.1
    found.square().sum().backward()
    for name, parameter in fresh.named_parameters():
        if name != "embedding.weight":
            assert parameter.grad is not None, name


@pytest.mark.parametrize("i", MOLECULES)
def test_a_conformer_weighs_the_same_however_it_lies(dataset: Dataset, i: int) -> None:
    torch.manual_seed(0)
    choice = Choice(SHAPE).double().eval()
    numbers, positions = atoms(dataset, i)
    order = torch.randperm(numbers.shape[1], generator=torch.Generator().manual_seed(i))
    turned = positions[:, order] @ rotation(i, mirrored=True).T + 2.0
    energies = torch.tensor([1.5], dtype=torch.float64)
    wide = torch.nn.functional.pad(numbers[:, order], (0, 3))
    with torch.no_grad():
        before = choice(numbers, positions, energies)
        after = choice(wide, torch.nn.functional.pad(turned, (0, 0, 0, 3)), energies)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)


def test_a_higher_energy_weighs_less_at_first(dataset: Dataset) -> None:
    torch.manual_seed(0)
    choice = Choice(SHAPE).eval()
    numbers, positions = (item.repeat(2, 1, 1)[:2] for item in atoms(dataset, 100))
    with torch.no_grad():
        low, high = choice(numbers.reshape(2, -1), positions.float(), torch.tensor([0.0, 3.0]))
    assert (high < low - 1).all()
    assert low.std() > 0  # each member has its own opinion
