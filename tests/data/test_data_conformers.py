"""Conformers of QM9: complete, resumable, with the handedness of QM9's geometries."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from qm9flow.data import geometry_set
from qm9flow.data.conformers import make_conformers, open_conformers
from qm9flow.data.stereo import LONGEST_BOND_ANGSTROM, graph_with_geometry, isomeric_smiles
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError, MoleculeError
from qm9flow.molecules.molecule import Structure
from qm9flow.molecules.pool import Job, MoleculePool, Progress


@pytest.fixture
def few(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """QM9's first thirty molecules, with a cache of their own."""
    monkeypatch.setattr(geometry_set, "SHARD", 10)
    return dataclasses.replace(
        dataset, folder=tmp_path / "qm9", ptr=dataset.ptr[:31], index=dataset.index[:30]
    )


def test_molecules_are_rebuilt_with_their_own_atoms(few: Dataset) -> None:
    made = make_conformers(few, 3, workers=1)
    assert len(made) == 30
    for i in range(30):
        energies = made.energies[made.first[i] : made.first[i + 1]]
        assert 1 <= made.count(i) <= 3
        assert (np.diff(energies) >= 0).all()
        numbers = made.molecule(i).numbers
        assert sorted(numbers) == sorted(few.molecule(i).numbers)
        assert len(made.molecule(i, made.count(i) - 1)) == len(numbers)
    assert made.failures == ()


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_conformers(few, 2, workers=1)
    shutil.rmtree(whole.folder)
    inner, calls = MoleculePool.build, []

    def counted(
        pool: MoleculePool, jobs: Sequence[Job], progress: Progress | None
    ) -> list[Structure | MoleculeError]:
        calls.append(len(jobs))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return inner(pool, jobs, progress=progress)

    monkeypatch.setattr(MoleculePool, "build", counted)
    with pytest.raises(KeyboardInterrupt):
        make_conformers(few, 2, workers=1)
    first, second = sorted(whole.folder.parent.glob("*-shards/*.npz"))
    second.write_bytes(second.read_bytes()[:100])
    told: list[tuple[int, int]] = []
    made = make_conformers(few, 2, workers=1, progress=lambda _, *counts: told.append(counts))
    assert made.digest == whole.digest
    assert calls == [10] * 5
    assert told == [(done, 30) for done in range(11, 31)]  # the rate counts what is made now
    assert not first.exists()


def test_an_interrupted_replacement_goes_on(few: Dataset) -> None:
    def stop_behind_the_first(_: str, done: int, __: int) -> None:
        if done == 11:
            raise KeyboardInterrupt

    old = make_conformers(few, 1, workers=1)
    before = old.folder.stat().st_ino
    with pytest.raises(KeyboardInterrupt):
        make_conformers(few, 1, workers=1, progress=stop_behind_the_first, replace=True)
    assert open_conformers(few, 1).digest == old.digest
    told: list[int] = []
    made = make_conformers(few, 1, workers=1, progress=lambda _, done, __: told.append(done))
    assert told == list(range(11, 31))
    assert made.digest == old.digest
    assert made.folder.stat().st_ino != before
    assert make_conformers(few, 1, workers=1).folder.stat().st_ino == made.folder.stat().st_ino
    assert not list(few.folder.parent.glob("*-shards"))


def test_a_damaged_folder_is_named(few: Dataset) -> None:
    with pytest.raises(CacheError, match="qm9flow data conformers"):
        open_conformers(few, 1)
    made = make_conformers(few, 1, workers=1)
    (made.folder / "energies.npy").unlink()
    with pytest.raises(CacheError, match=r"damaged.*`qm9flow data conformers --force`"):
        open_conformers(few, 1)
    (made.folder / "manifest.json").write_text("{}")
    with pytest.raises(CacheError, match=r"damaged.*`qm9flow data conformers --force`"):
        open_conformers(few, 1)


def test_handedness_is_read_from_the_geometry(dataset: Dataset) -> None:
    found = [isomeric_smiles(dataset, i) for i in range(100, 20_000, 97)]
    assert sum("@" in text or "/" in text for text in found) > len(found) / 2


@pytest.mark.parametrize("text", ["[NH3+]", "[NH2+]=C", "C#CC#C"])
def test_bonds_are_laid_onto_geometries_whose_atoms_have_another_order(
    dataset: Dataset, text: str
) -> None:
    found = [i for i in range(100_000) if text in dataset.smiles(i)][:8]
    assert found
    for i in found:
        graph = graph_with_geometry(dataset, i)
        assert graph is not None
        molecule = dataset.molecule(i)
        assert [atom.GetAtomicNum() for atom in graph.GetAtoms()] == molecule.numbers.tolist()
        ends = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in graph.GetBonds()])
        first, second = molecule.positions[ends.T]
        assert np.linalg.norm(first - second, axis=1).max() < LONGEST_BOND_ANGSTROM
        same, theirs = (
            Chem.CanonSmiles(smiles, useChiral=0)
            for smiles in (isomeric_smiles(dataset, i), dataset.smiles(i))
        )
        assert same == theirs


def test_charge_separated_molecules_have_their_handedness(dataset: Dataset) -> None:
    charged = [i for i in range(60_000, 80_000) if "[NH3+]" in dataset.smiles(i)]
    found = [isomeric_smiles(dataset, i) for i in charged]
    assert sum("@" in text for text in found) > len(found) / 2
