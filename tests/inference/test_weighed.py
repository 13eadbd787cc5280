"""Which conformers count."""

import numpy as np
import pytest

from qm9flow.inference.weighed import weighed
from qm9flow.molecules.molecule import Conformers, Molecule

WATER = np.array([[0.0, 0.0, 0.1], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]])
NUMBERS = np.array([8, 1, 1])
ONE = Molecule(NUMBERS, WATER)


def several(energies: list[float]) -> Conformers:
    positions = np.stack([WATER * (1 + 0.01 * i) for i in range(len(energies))])
    return Conformers(NUMBERS, positions, np.array(energies), "O")


def test_by_boltzmanns_factors_where_nothing_weighs_them() -> None:
    shapes = several([0.0, 0.5, 1.0])
    found = weighed([ONE, shapes], None, 0.0)
    np.testing.assert_allclose(found.weights, [1.0, *shapes.weights()])
    assert found.starts.tolist() == [0, 1]
    assert found.likeliest.tolist() == [0, 1]


def test_by_logits_and_without_those_that_do_not_count() -> None:
    logits = np.log([0.005, 0.7, 0.295, 0.2, 0.8])
    found = weighed([several([0.0, 1, 2]), ONE, several([0.0, 1])], logits, 0.01)
    np.testing.assert_allclose(found.weights, [0.7 / 0.995, 0.295 / 0.995, 1.0, 0.2, 0.8])
    assert found.starts.tolist() == [0, 2, 3]
    assert found.likeliest.tolist() == [0, 2, 4]
    np.testing.assert_allclose(found.geometries[0].positions, WATER * 1.01)


def test_the_likeliest_of_many_counts_however_little_it_weighs() -> None:
    found = weighed([several([0.0] * 200)], np.zeros(200), 0.01)
    assert len(found.geometries) == 200
    assert found.weights.sum() == pytest.approx(1)


def test_by_boltzmanns_factors_where_the_network_cannot_tell() -> None:
    molecules = [several([0.0, 1.0]), several([0.0, 1.0])]
    found = weighed(molecules, np.array([0.0, np.nan, 0.0, 0.0]), 0.01)
    np.testing.assert_allclose(found.weights[:2], molecules[0].weights())
    np.testing.assert_allclose(found.weights[2:], 0.5)
