"""Geometries of several sources, and batches that draw one of each molecule."""

import collections
import dataclasses
import itertools
from pathlib import Path

import few_geometries
import numpy as np
import numpy.typing as npt
import pytest
import torch

from qm9flow.data.geometries import open_geometries, require_geometries
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError

CHOSEN = list(range(40_000, 41_000, 40))


@pytest.fixture(scope="module")
def few(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cache")
    few_geometries.with_geometries(dataset, folder, CHOSEN, "approximate")
    return few_geometries.with_geometries(dataset, folder, CHOSEN)


@pytest.fixture(scope="module")
def relaxed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cache")
    return few_geometries.with_geometries(dataset, folder, CHOSEN, "approximate")


def test_conformers_are_drawn_by_their_shares(dataset: Dataset) -> None:
    starts, shares = np.array([0, 1, 4, 6]), np.array([1.0, 0.0, 0.25, 0.75, 0.9, 0.1])
    places = np.array([5, 60_000, 60_000, 60_000, 9, 9])
    resident = ResidentMolecules.load(dataset, places, None, "cpu", starts=starts, shares=shares)
    generator, seen = torch.Generator().manual_seed(1), np.zeros(6)
    for _ in range(3000):
        for step in resident.batches(4, generator):
            for batch in step:
                seen[batch.index.numpy()] += 1
    assert seen[1] == 0
    np.testing.assert_allclose(seen / 3000, shares, atol=0.04)


def test_the_conformer_that_dft_has_is_the_one_to_learn_from(few: Dataset) -> None:
    geometries = open_geometries("smiles", few)
    some = geometries.known(np.array(CHOSEN))
    places, starts = geometries.all_of(some)
    shares = [geometries.shares[places[a:b]] for a, b in itertools.pairwise(starts)]
    np.testing.assert_allclose([item.sum() for item in shares], 1)
    certain = [item for item in shares if len(item) > 1 and item.max() == 1]
    assert len(certain) > 5
    assert any(item[0] == 0 for item in certain)  # not always the lowest


def test_the_tables_own_geometries_are_one_each(dataset: Dataset) -> None:
    own = open_geometries("dft", dataset)
    some = np.array([5, 3, 100_000])
    places, starts = own.all_of(some)
    assert places.tolist() == own.best(some).tolist() == some.tolist()
    assert starts.tolist() == [0, 1, 2, 3]


def test_geometries_that_are_not_there_are_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(dataset, folder=tmp_path / "qm9")
    with pytest.raises(CacheError, match="qm9flow data relaxed"):
        open_geometries("smiles", elsewhere)
    with pytest.raises(CacheError, match="qm9flow data relaxed"):
        open_geometries("approximate", elsewhere)
    with pytest.raises(CacheError, match="`qm9flow data conformers` and `qm9flow data relaxed`"):
        require_geometries("smiles", elsewhere)
    require_geometries("dft", elsewhere)


def test_molecules_without_a_geometry_are_left_out(few: Dataset) -> None:
    geometries = open_geometries("smiles", few)
    mixed = np.array([CHOSEN[3], 7, CHOSEN[1]])
    assert geometries.known(mixed).tolist() == [CHOSEN[3], CHOSEN[1]]


def test_all_conformers_of_a_molecule_lie_together(few: Dataset) -> None:
    geometries = open_geometries("smiles", few)
    some = geometries.known(np.array(CHOSEN[::-1]))
    places, starts = geometries.all_of(some)
    assert (np.diff(starts) >= 1).all()
    assert np.diff(starts).max() > 1
    for row, molecule in enumerate(some):
        own = places[starts[row] : starts[row + 1]]
        assert own.tolist() == list(
            range(geometries.first[molecule], geometries.first[molecule + 1])
        )
        assert own[0] == geometries.best(np.array([molecule]))[0]


def test_an_epoch_draws_one_conformer_of_each_molecule(few: Dataset) -> None:
    geometries = open_geometries("smiles", few)
    some = geometries.known(np.array(CHOSEN))
    places, starts = geometries.all_of(some)
    resident = ResidentMolecules.load(geometries.atoms, places, None, "cpu", starts=starts)
    assert len(resident) == len(some) >= len(CHOSEN) - 2
    owner = np.repeat(np.arange(len(some)), np.diff(starts))
    seen: collections.Counter[int] = collections.Counter()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        drawn = [
            int(place)
            for step in resident.batches(16, generator)
            for batch in step
            for place in batch.index
        ]
        assert sorted(owner[drawn].tolist()) == list(range(len(some)))
        seen.update(drawn)
    assert set(seen) == set(range(len(places)))
    assert len(resident.first(3)) == 3
    assert len(resident.first(3).sizes) == starts[3]


def test_a_relaxed_geometry_keeps_its_atoms_and_nearly_its_place(relaxed: Dataset) -> None:
    geometries = open_geometries("approximate", relaxed)
    some = geometries.known(np.array(CHOSEN))
    assert len(some) >= len(CHOSEN) - 2
    for molecule, place in zip(some.tolist(), geometries.best(some).tolist(), strict=True):
        atoms = slice(geometries.atoms.ptr[place], geometries.atoms.ptr[place + 1])
        own = relaxed.molecule(molecule)
        assert geometries.atoms.numbers[atoms].tolist() == own.numbers.tolist()
        moved = _distances(geometries.atoms.positions[atoms]) - _distances(own.positions)
        assert 0.001 < np.sqrt((moved**2).mean()) < 1.0


def _distances(positions: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(positions[:, None] - positions[None], axis=-1))
