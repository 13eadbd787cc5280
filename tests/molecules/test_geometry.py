"""Rotational constants and nuclear extents: closed forms, invariances."""

import numpy as np
import numpy.typing as npt
import pytest

from qm9flow.data.store import Dataset
from qm9flow.elements import by_number
from qm9flow.molecules.geometry import nuclear_extents, rotational_constants_ragged
from qm9flow.units import BOHR_ANGSTROM, ROTATIONAL_GHZ_U_A2

Floats = npt.NDArray[np.float64]


def constants_of(numbers: npt.NDArray[np.integer], positions: Floats) -> Floats:
    """(3,), of one molecule."""
    return rotational_constants_ragged(numbers, positions, np.array([0, len(numbers)]))[0]


def test_diatomic_molecule_has_the_closed_form() -> None:
    masses = by_number("mass_u")
    reduced = masses[6] * masses[8] / (masses[6] + masses[8])
    positions = np.array([[0.3, -2.0, 1.0], [0.3, -2.0, 2.128]])
    a, b, c = constants_of(np.array([6, 8]), positions)
    assert a == 0
    assert b == pytest.approx(ROTATIONAL_GHZ_U_A2 / (reduced * 1.128**2), rel=1e-12)
    assert c == pytest.approx(b, rel=1e-12)


def test_single_atom_has_none() -> None:
    assert not constants_of(np.array([7]), np.array([[1.0, 2.0, 3.0]])).any()


def test_no_molecules_give_no_rows() -> None:
    empty = rotational_constants_ragged(np.zeros(0, int), np.zeros((0, 3)), np.array([0]))
    assert empty.shape == (0, 3)


def test_planar_ring_obeys_the_perpendicular_axis_theorem() -> None:
    angles = np.arange(6) * np.pi / 3
    ring = np.stack([1.4 * np.cos(angles), 1.4 * np.sin(angles), np.zeros(6)], axis=1)
    a, b, c = constants_of(np.full(6, 6), ring)
    assert 1 / a + 1 / b == pytest.approx(1 / c, rel=1e-10)


def test_moving_and_turning_change_nothing(dataset: Dataset) -> None:
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    chosen = [0, 5, 20_000, 130_830]
    molecules = [dataset.molecule(i) for i in chosen]
    moved = [
        constants_of(item.numbers, item.positions @ rotation.T + [5.0, -3.0, 8.0])
        for item in molecules
    ]
    np.testing.assert_allclose(moved, dataset.rotational_ghz[chosen], rtol=2e-6)


def test_linear_molecules_have_no_a(dataset: Dataset) -> None:
    is_linear = dataset.rotational_ghz[:, 0] == 0
    assert is_linear.sum() == 9
    raw_a = dataset.truth()[:, -3]
    assert not raw_a[is_linear].any()
    assert raw_a[~is_linear].all()


def test_extents_by_hand() -> None:
    """CO: reduced charge times distance squared. H alone: none. H2O, from its centre of charge."""
    carbon_monoxide = [[0.3, -2.0, 1.0], [0.3, -2.0, 2.128]]
    water = [[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]]
    centre = (8 * 0.12 - 2 * 0.47) / 10
    by_hand = [
        6 * 8 / (6 + 8) * 1.128**2,
        0.0,
        8 * (0.12 - centre) ** 2 + 2 * ((0.47 + centre) ** 2 + 0.76**2),
    ]
    extents = nuclear_extents(
        np.array([6, 8, 1, 8, 1, 1]),
        np.array([*carbon_monoxide, [9.0, -9.0, 4.0], *water]),
        np.array([0, 2, 3, 6]),
    )
    assert extents == pytest.approx(np.array(by_hand) / BOHR_ANGSTROM**2, rel=1e-12, abs=1e-20)


def test_no_molecules_have_no_extents() -> None:
    assert nuclear_extents(np.zeros(0, int), np.zeros((0, 3)), np.array([0])).shape == (0,)


def test_extents_do_not_see_where_a_molecule_is(dataset: Dataset) -> None:
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    molecules = [dataset.molecule(i) for i in (0, 5, 20_000, 130_830)]
    numbers = np.concatenate([molecule.numbers for molecule in molecules])
    places = np.concatenate([molecule.positions for molecule in molecules]).astype(np.float64)
    ptr = np.cumsum([0] + [len(molecule) for molecule in molecules])
    here = nuclear_extents(numbers, places, ptr)
    moved = places @ rotation.T + rng.normal(scale=10.0, size=3)
    np.testing.assert_allclose(nuclear_extents(numbers, moved, ptr), here, rtol=1e-12)
    np.testing.assert_allclose(here, dataset.extents[[0, 5, 20_000, 130_830]], rtol=1e-6)


def test_methane_of_qm9_has_the_extent_of_its_bonds(dataset: Dataset) -> None:
    """Carbon lies in the centre, four hydrogens 1.09 angstrom from it."""
    assert dataset.extents[0] == pytest.approx(4 * (1.092 / BOHR_ANGSTROM) ** 2, rel=2e-3)
