from functools import partial

import numpy as np
import pytest

from qm9flow.data.store import Dataset
from qm9flow.inference.calibration import SHARES, STRANGE, SourceCalibration
from qm9flow.inference.domain import (
    QM9_MAX_ATOMS,
    QM9_MAX_HEAVY,
    QM9_MIN_ATOMS,
    domain_of,
    doubts,
    geometry_doubt,
    size_factor,
    widening,
)
from qm9flow.molecules.molecule import Molecule


def chain(elements: list[int], step: float = 1.2, geometry: str = "dft") -> Molecule:
    positions = np.zeros((len(elements), 3))
    positions[:, 0] = np.arange(len(elements)) * step
    return Molecule(np.array(elements), positions, geometry)  # type: ignore[arg-type]


def test_limits_are_those_of_the_data(dataset: Dataset) -> None:
    heavy = dataset.counts()[:, 2:].sum(axis=1)
    assert dataset.sizes.max() == QM9_MAX_ATOMS
    assert dataset.sizes.min() == QM9_MIN_ATOMS
    assert heavy.max() == QM9_MAX_HEAVY


def test_molecules_of_qm9_raise_no_doubt(dataset: Dataset) -> None:
    for index in range(0, len(dataset), 997):
        assert doubts(dataset.molecule(index), cutoff_angstrom=5.0) == ()


@pytest.mark.parametrize(
    ("molecule", "words"),
    [
        (chain([6] * 10), ["10 heavy atoms"]),
        (chain([6] * 9 + [1] * 21), ["30 atoms", "odd number"]),
        (chain([1]), ["atoms: 1", "odd number of electrons"]),
        (chain([6, 1, 1, 1]), ["odd number of electrons"]),
        (chain([8, 1, 1, 6, 1, 1], step=1.9), []),
        (chain([6, 1, 1], step=6.0), ["3 parts", "6.0 angstrom"]),
        (chain([6] * 30, step=6.0, geometry="smiles"), ["heavy", "30 atoms", "30 parts", "5 ang"]),
    ],
)
def test_doubts_are_named(molecule: Molecule, words: list[str]) -> None:
    found = doubts(molecule, cutoff_angstrom=5.0)
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert word in sentence


@pytest.mark.parametrize(
    ("distance", "said"), [(1.004, "1.01"), (1.04, "1.04"), (2.5, "2.5"), (2712.0, "2,712")]
)
def test_how_far_away_a_molecule_is(distance: float, said: str) -> None:
    usual = SHARES.index(1 - STRANGE)
    distances = tuple(1.0 + 1e-4 * (place - usual) for place in range(len(SHARES)))
    calibrated = SourceCalibration(1000, {}, distances)
    (reason,) = domain_of((), distance, calibrated).reasons
    assert f"lies {said} times as far away" in reason


def test_a_geometry_that_is_not_from_dft_is_named() -> None:
    for has_network, is_refined in ((False, False), (True, False), (True, True)):
        doubt = partial(geometry_doubt, has_network=has_network, is_refined=is_refined)
        assert doubt("dft") == ()
        for source, word in (("smiles", "SMILES"), ("approximate", "approximate")):
            (sentence,) = doubt(source)
            assert ("then refined" in sentence) == is_refined
            assert word in sentence
            assert "rotational" in sentence


def test_intervals_widen_with_what_no_molecule_was_as_large_as() -> None:
    assert size_factor(np.array([1, 9, 10, 18])).tolist() == [1.0, 1.0, 1.5, 4.0]
    assert size_factor(np.array([8, 9]), largest=8).tolist() == [1.0, 1.5]


def test_two_molecules_are_not_one() -> None:
    water = np.array([[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
    numbers, apart = np.array([8, 1, 1, 8, 1, 1]), np.concatenate([water, water + 30])
    assert ["2 parts" in text for text in doubts(Molecule(numbers, apart), 5.0)] == [True]


def test_what_the_network_cannot_place_is_outside() -> None:
    calibrated = SourceCalibration(100, {}, tuple(np.linspace(0, 1, len(SHARES)).tolist()))
    domain = domain_of((), np.inf, calibrated)
    assert (domain.is_inside, domain.score) == (False, 0.0)
    assert domain.reasons[0].endswith("the nearest of them lies beyond all measure")
    assert widening(chain([6, 6]), domain, np.inf, calibrated) == np.inf
