"""Rotational constants: closed forms, invariances, padding."""

import numpy as np
import pytest

from qm9flow.data.store import Dataset
from qm9flow.elements import by_number
from qm9flow.molecules.geometry import rotational_constants_ghz, rotational_constants_ragged
from qm9flow.units import ROTATIONAL_GHZ_U_A2


def test_diatomic_molecule_has_the_closed_form() -> None:
    masses = by_number("mass_u")
    reduced = masses[6] * masses[8] / (masses[6] + masses[8])
    positions = np.array([[[0.3, -2.0, 1.0], [0.3, -2.0, 2.128]]])
    a, b, c = rotational_constants_ghz(np.array([[6, 8]]), positions)[0]
    assert a == 0
    assert b == pytest.approx(ROTATIONAL_GHZ_U_A2 / (reduced * 1.128**2), rel=1e-12)
    assert c == pytest.approx(b, rel=1e-12)


def test_single_atom_has_none() -> None:
    assert not rotational_constants_ghz(np.array([[7]]), np.array([[[1.0, 2.0, 3.0]]])).any()


def test_no_molecules_give_no_rows() -> None:
    empty = rotational_constants_ragged(np.zeros(0, int), np.zeros((0, 3)), np.array([0]))
    assert empty.shape == (0, 3)


def test_planar_ring_obeys_the_perpendicular_axis_theorem() -> None:
    angles = np.arange(6) * np.pi / 3
    ring = np.stack([1.4 * np.cos(angles), 1.4 * np.sin(angles), np.zeros(6)], axis=1)
    a, b, c = rotational_constants_ghz(np.full((1, 6), 6), ring[None])[0]
    assert 1 / a + 1 / b == pytest.approx(1 / c, rel=1e-10)


def test_moving_turning_and_padding_change_nothing(dataset: Dataset) -> None:
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    chosen = [0, 5, 20_000, 130_830]
    width = 40
    numbers, positions = np.zeros((4, width), int), rng.normal(size=(4, width, 3))
    for row, i in enumerate(chosen):
        molecule = dataset.molecule(i)
        numbers[row, : len(molecule)] = molecule.numbers
        positions[row, : len(molecule)] = molecule.positions @ rotation.T + [5.0, -3.0, 8.0]
    moved = rotational_constants_ghz(numbers, positions)
    np.testing.assert_allclose(moved, dataset.rotational_ghz[chosen], rtol=2e-6)


def test_linear_molecules_have_no_a(dataset: Dataset) -> None:
    is_linear = dataset.rotational_ghz[:, 0] == 0
    assert is_linear.sum() == 9
    raw_a = dataset.truth()[:, -3]
    assert not raw_a[is_linear].any()
    assert raw_a[~is_linear].all()
