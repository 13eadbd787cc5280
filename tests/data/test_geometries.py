"""Geometries of several sources."""

import dataclasses
from pathlib import Path

import few_geometries
import numpy as np
import numpy.typing as npt
import pytest

from qm9flow.data.conformers import open_conformers
from qm9flow.data.geometries import (
    candidates,
    is_the_one,
    open_geometries,
    require_geometries,
)
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError

CHOSEN = list(range(40_000, 41_000, 25))


@pytest.fixture(scope="module")
def few(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cache")
    few_geometries.with_geometries(dataset, folder, CHOSEN, "approximate")
    return few_geometries.with_geometries(dataset, folder, CHOSEN)


def test_the_tables_own_geometries_are_one_each(dataset: Dataset) -> None:
    own = open_geometries("dft", dataset)
    some = np.array([5, 3, 100_000])
    assert own.known(some).tolist() == own.of(some).tolist() == some.tolist()


def test_the_conformer_that_dft_has_is_found_for_most(few: Dataset) -> None:
    conformers = open_conformers(few)
    known = is_the_one(conformers, open_relaxed(few))
    first = conformers.first[CHOSEN]
    counts = np.array([conformers.count(i) for i in CHOSEN])
    found = np.array([known[a : a + n].any() for a, n in zip(first, counts, strict=True)])
    assert found.mean() > 0.6
    assert not known[first[counts > 1]].all()  # not always the lowest


def test_candidates_are_completed_by_the_conformer_that_was_missed(few: Dataset) -> None:
    conformers, relaxed = open_conformers(few), open_relaxed(few)
    as_found = candidates(conformers, relaxed)
    assert as_found.atoms is conformers  # nothing is copied where nothing is added
    np.testing.assert_array_equal(as_found.first, conformers.first)
    np.testing.assert_array_equal(as_found.is_known, is_the_one(conformers, relaxed))
    whole = candidates(conformers, relaxed, are_completed=True)
    missed = [i for i in CHOSEN if conformers.count(i) and not as_found.tells[i]]
    added = 0
    for i in CHOSEN:
        mine = slice(whole.first[i], whole.first[i + 1])
        assert (np.diff(whole.energies[mine]) >= 0).all()
        assert whole.is_known[mine].any() == (conformers.count(i) > 0)
        if mine.stop - mine.start > conformers.count(i):
            added += 1
            (place,) = whole.places[mine][whole.is_known[mine]]
            atoms = slice(whole.atoms.ptr[place], whole.atoms.ptr[place + 1])
            np.testing.assert_array_equal(
                whole.atoms.positions[atoms], relaxed.molecule(i).positions.astype(np.float32)
            )
            assert i in missed
    assert added > 0


def test_geometries_that_are_not_there_are_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(dataset, folder=tmp_path / "qm9")
    with pytest.raises(CacheError, match="qm9flow data relaxed"):
        open_geometries("approximate", elsewhere)
    with pytest.raises(CacheError, match="`qm9flow data conformers` and `qm9flow data relaxed`"):
        require_geometries("approximate", elsewhere)
    require_geometries("dft", elsewhere)


def test_molecules_without_a_geometry_are_left_out(few: Dataset) -> None:
    geometries = open_geometries("approximate", few)
    mixed = np.array([CHOSEN[3], 7, CHOSEN[1]])
    assert geometries.known(mixed).tolist() == [CHOSEN[3], CHOSEN[1]]


def test_a_relaxed_geometry_keeps_its_atoms_and_nearly_its_place(few: Dataset) -> None:
    geometries = open_geometries("approximate", few)
    some = geometries.known(np.array(CHOSEN))
    assert len(some) >= len(CHOSEN) - 2
    for molecule, place in zip(some.tolist(), geometries.of(some).tolist(), strict=True):
        atoms = slice(geometries.atoms.ptr[place], geometries.atoms.ptr[place + 1])
        own = few.molecule(molecule)
        assert geometries.atoms.numbers[atoms].tolist() == own.numbers.tolist()
        moved = _distances(geometries.atoms.positions[atoms]) - _distances(own.positions)
        assert 0.001 < np.sqrt((moved**2).mean()) < 1.0


def _distances(positions: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(positions[:, None] - positions[None], axis=-1))
