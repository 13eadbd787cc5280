"""Geometries of QM9's molecules that are not QM9's own.

Made once, in shards, so that a run that was cut off goes on; then opened by memory map.
"""

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rdkit

from qm9flow.data import cache as columns
from qm9flow.data.source import Progress
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError, ConformerError, MoleculeError
from qm9flow.files import replace_file
from qm9flow.molecules.molecule import Conformers, Molecule, Structure
from qm9flow.molecules.pool import Job, MoleculePool

FORMAT = 2
SHARD = 500
"""Molecules a file while they are made: what a kill costs, half a minute of two cores."""

ANEW = "anew"
"""A file among the shards of a run that is to replace a good set: without it, that set is final."""

SAME = "its atoms are not those of the tables' geometry"

Arrays = dict[str, npt.NDArray[Any]]
Part = tuple[Arrays, list[list[Any]]]
"""Arrays of some molecules, and for those that have no geometry the place, SMILES and reason."""


@dataclass(frozen=True, eq=False)
class GeometrySet:
    """Geometries, one molecule after another; arrays are read-only.

    Attributes:
        digest: SHA-256 of the content.
        folder: Where the arrays lie.
        failures: Molecules that have none: place in the dataset, SMILES, reason.
        first: (M + 1,), int64; molecule i has the geometries first[i] to first[i + 1] - 1, that of
            the lowest energy first.
        energies: (G,), float32, kcal/mol of the force field.
        ptr: (G + 1,), int64; geometry g has the atoms ptr[g] to ptr[g + 1] - 1.
        numbers: (A,), uint8, atomic numbers, not always in the order of the dataset's.
        positions: (A, 3), float32, angstrom.
        texts: The SMILES that they were made from, as bytes.
        text_ptr: (M + 1,), int64.
    """

    digest: str
    folder: Path
    failures: tuple[tuple[int, str, str], ...]
    first: npt.NDArray[np.int64]
    energies: npt.NDArray[np.float32]
    ptr: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.float32]
    texts: npt.NDArray[np.uint8]
    text_ptr: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of molecules, those without geometries counted in."""
        return len(self.first) - 1

    def count(self, i: int) -> int:
        """Geometries of a molecule.

        Args:
            i: Its place, from 0.

        Returns:
            How many there are.
        """
        return int(self.first[i + 1] - self.first[i])

    def smiles(self, i: int) -> str:
        """The SMILES that a molecule was rebuilt from.

        Args:
            i: Its place, from 0.

        Returns:
            The text, with the handedness of the geometry.
        """
        return self.texts[self.text_ptr[i] : self.text_ptr[i + 1]].tobytes().decode()

    def molecule(self, i: int, rank: int = 0) -> Molecule:
        """One geometry.

        Args:
            i: Place of the molecule, from 0.
            rank: 0 is that of the lowest energy.

        Returns:
            The molecule.

        Raises:
            IndexError: It has no such geometry.
        """
        c = int(self.first[i]) + range(self.count(i))[rank]
        atoms = slice(self.ptr[c], self.ptr[c + 1])
        positions = self.positions[atoms].astype(np.float64)
        return Molecule(self.numbers[atoms].astype(np.int64), positions, "smiles", self.smiles(i))

    def conformers(self, i: int) -> Conformers:
        """All geometries of a molecule.

        Args:
            i: Its place, from 0.

        Returns:
            As a SMILES has them.

        Raises:
            IndexError: It has none.
        """
        found = [self.molecule(i, rank) for rank in range(self.count(i))]
        energies = self.energies[self.first[i] : self.first[i + 1]].astype(np.float64)
        positions = np.stack([item.positions for item in found])
        return Conformers(found[0].numbers, positions, energies, self.smiles(i))


@dataclass(frozen=True)
class Kind:
    """What a set holds and how it comes about.

    Attributes:
        name: Of its folder.
        command: What makes it.
        facts: What else its manifest says.
        jobs: The texts to note for some molecules, and a job for each of them.
    """

    name: str
    command: str
    facts: dict[str, Any]
    jobs: Callable[[Dataset, range], tuple[list[str], list[Job]]]

    def folder(self, dataset: Dataset) -> Path:
        """Where the set lies.

        Args:
            dataset: QM9.

        Returns:
            Beside the dataset's own folder.
        """
        return dataset.folder.parent / self.name.format(digest=dataset.digest[:8], format=FORMAT)


def open_set(kind: Kind, dataset: Dataset) -> GeometrySet:
    """A set as it was made.

    Args:
        kind: Which.
        dataset: QM9.

    Returns:
        All of it, memory-mapped.

    Raises:
        CacheError: It has not been made, or is damaged.
    """
    folder = kind.folder(dataset)
    remedy = f"make it anew with `{kind.command} --force`"
    try:
        arrays, manifest = columns.read(folder, remedy)
        failures = tuple((int(i), text, why) for i, text, why in manifest["failures"])
        return GeometrySet(manifest["digest"], folder, failures, **arrays)
    except FileNotFoundError as error:
        raise CacheError(f"there is no {folder}: make it with `{kind.command}`") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CacheError(f"{folder} is damaged ({error}): {remedy}") from error


def make_set(
    kind: Kind,
    dataset: Dataset,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    replace: bool = False,
) -> GeometrySet:
    """Make a set, going on where an earlier run was cut off, also one that was to replace a set.

    Args:
        kind: Which.
        dataset: QM9.
        workers: Processes; none means one for each usable core.
        progress: Called with what is done, how many molecules, of how many.
        replace: Make a good one anew, too.

    Returns:
        All of it, memory-mapped.

    Raises:
        CacheError: The cache cannot be written.
    """
    folder = kind.folder(dataset)
    shards = folder.with_name(f"{folder.name}-shards")
    if replace:
        shutil.rmtree(shards, ignore_errors=True)
    elif folder.exists() and not (shards / ANEW).exists():
        return open_set(kind, dataset)
    columns.require_writable(folder)
    try:
        shards.mkdir(parents=True, exist_ok=True)
        if replace:
            (shards / ANEW).touch()
        with MoleculePool(workers) as pool:
            parts = _parts(kind, dataset, shards, pool, progress)
    except OSError as error:
        raise CacheError(f"cannot write geometries to {shards}: {error}; free space") from error
    arrays, failures = _joined(parts)
    hashes = {name: columns.array_hash(array) for name, array in arrays.items()}
    facts = {
        "digest": columns.content_digest(hashes),
        "dataset": dataset.digest,
        "rdkit": rdkit.__version__,
        **kind.facts,
        "failures": failures,
    }
    columns.write(folder, arrays, facts, replace=(shards / ANEW).exists())
    (shards / ANEW).unlink(missing_ok=True)
    shutil.rmtree(shards, ignore_errors=True)
    return open_set(kind, dataset)


def _ranges(total: int) -> Iterator[range]:
    for start in range(0, total, SHARD):
        yield range(start, min(start + SHARD, total))


def _parts(
    kind: Kind, dataset: Dataset, shards: Path, pool: MoleculePool, progress: Progress | None
) -> list[Part]:
    """All files of molecules; progress begins with the first that is not there yet."""
    parts = []
    for places in _ranges(len(dataset)):
        path = shards / f"{places.start:06d}.npz"
        part = _read_shard(path)
        if part is None:
            tell = None if progress is None else _behind(places.start, len(dataset), progress)
            part = _made(path, places, dataset, kind, partial(pool.build, progress=tell))
        parts.append(part)
    return parts


def _behind(before: int, total: int, progress: Progress) -> Progress:
    """Progress of a file as that of the set."""
    return lambda what, done, _: progress(what, before + done, total)


def _made(
    path: Path,
    places: range,
    dataset: Dataset,
    kind: Kind,
    build: Callable[[list[Job]], list[Structure | MoleculeError]],
) -> Part:
    """One file of molecules."""
    texts, jobs = kind.jobs(dataset, places)
    built = build(jobs)
    found = [_checked(dataset, i, item) for i, item in zip(places, built, strict=True)]
    arrays, failures = _packed(places, texts, found)
    note = np.frombuffer(json.dumps(failures).encode(), dtype=np.uint8)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, failures=note, **arrays)
    replace_file(path, file.getvalue())
    return arrays, failures


def _read_shard(path: Path) -> Part | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return arrays, json.loads(arrays.pop("failures").tobytes())
    # not there, or damaged, which gives any of these by where it is
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _checked(
    dataset: Dataset, i: int, item: Structure | MoleculeError
) -> Structure | MoleculeError:
    if isinstance(item, Conformers):
        atoms = slice(dataset.ptr[i], dataset.ptr[i + 1])
        if not np.array_equal(np.sort(item.numbers), np.sort(dataset.numbers[atoms])):
            return ConformerError(SAME)
    return item


def _packed(
    places: range, texts: Sequence[str], found: Sequence[Structure | MoleculeError]
) -> Part:
    whole = [item for item in found if isinstance(item, Conformers)]
    counts = [len(item.energies) if isinstance(item, Conformers) else 0 for item in found]
    sizes = [len(item.numbers) for item in whole for _ in item.energies]
    encoded = [text.encode() for text in texts]
    arrays: Arrays = {
        "counts": np.array(counts, dtype=np.int64),
        "sizes": np.array(sizes, dtype=np.int64),
        "energies": _concatenated([item.energies for item in whole], np.float32),
        "numbers": _concatenated(
            [np.tile(item.numbers, len(item.energies)) for item in whole], np.uint8
        ),
        "positions": _concatenated(
            [item.positions.reshape(-1, 3) for item in whole], np.float32, (0, 3)
        ),
        "texts": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "lengths": np.array([len(text) for text in encoded], dtype=np.int64),
    }
    failures = [
        [i, text, str(item)]
        for i, text, item in zip(places, texts, found, strict=True)
        if not isinstance(item, Conformers)
    ]
    return arrays, failures


def _concatenated(
    parts: Sequence[npt.NDArray[Any]], kind: Any, empty: tuple[int, ...] = (0,)
) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(empty, dtype=kind), *parts]).astype(kind)


def _joined(parts: Sequence[Part]) -> Part:
    names = parts[0][0]
    joined = {name: np.concatenate([arrays[name] for arrays, _ in parts]) for name in names}
    for lengths, pointers in (("counts", "first"), ("sizes", "ptr"), ("lengths", "text_ptr")):
        joined[pointers] = np.concatenate([[0], np.cumsum(joined.pop(lengths))]).astype(np.int64)
    return joined, [failure for _, failures in parts for failure in failures]
