"""QM9 as columns: prepared once from the tables, then opened by memory map."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from qm9flow import targets
from qm9flow.data import cache as columns
from qm9flow.data import source
from qm9flow.data.source import Progress
from qm9flow.elements import MAX_NUMBER
from qm9flow.errors import CacheError
from qm9flow.locations import cache_folder
from qm9flow.molecules.geometry import nuclear_extents, rotational_constants_ragged
from qm9flow.molecules.molecule import Molecule
from qm9flow.properties import LEARNED, PROPERTIES, RAW_COLUMNS, TARGETS

logger = logging.getLogger(__name__)

_FOLDER = f"qm9-format{columns.FORMAT}"
"""Of the cache, so that versions of qm9flow with other formats do not replace each other's."""
_FOLDERS = ("qm9", "qm9-format*")
"""Patterns of all formats' folders; the first ones had no number."""
_COMPUTED = ("rotational_ghz", "extents")
"""Arrays that float sums made: left out of the digest, whose bits every machine must repeat."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """All 130,831 molecules, one after another, in the order of the tables; arrays are read-only.

    Attributes:
        digest: SHA-256 of the content.
        folder: Where the arrays lie.
        index: (M,), int32, QM9's own numbers of the molecules, 1 to 133,885.
        numbers: (A,), uint8, atomic numbers.
        positions: (A, 3), float32, angstrom.
        ptr: (M + 1,), int64; molecule i has the atoms ptr[i] to ptr[i + 1] - 1.
        raw: (M, 15), float64, in the order of `properties.RAW_COLUMNS`, in the tables' units.
        rotational_ghz: (M, 3), float64, A, B and C from the geometry in float64.
        extents: (M,), float64, nuclear extent, bohr^2 (`molecules.geometry.nuclear_extents`).
        charges: (A,), float32, Mulliken charges, elementary charges.
        frequencies: (F,), float32, harmonic frequencies, 1/cm, as the tables list them: 334
            molecules have some twice.
        frequency_ptr: (M + 1,), int64, as `ptr` for frequencies.
        polarizability: (M, 6), float32, xx, xy, yy, xz, yz, zz, bohr^3.
        texts: All SMILES and InChI, as bytes.
        text_ptr: (2 M + 1,), int64; the SMILES of molecule i is text 2 i, its InChI text 2 i + 1.
    """

    digest: str
    folder: Path
    index: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.float32]
    ptr: npt.NDArray[np.int64]
    raw: Floats
    rotational_ghz: Floats
    extents: Floats
    charges: npt.NDArray[np.float32]
    frequencies: npt.NDArray[np.float32]
    frequency_ptr: npt.NDArray[np.int64]
    polarizability: npt.NDArray[np.float32]
    texts: npt.NDArray[np.uint8]
    text_ptr: npt.NDArray[np.int64]

    @classmethod
    def from_arrays(cls, digest: str, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """A data set whose arrays came from another machine.

        Args:
            digest: Of the content.
            arrays: By the names above; they are not copied.

        Returns:
            The data set, without a folder.
        """
        return cls(digest=digest, folder=Path(), **arrays)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, to be sent to another machine.

        Returns:
            The arrays, not copied.
        """
        names = [item.name for item in fields(self) if item.name not in ("digest", "folder")]
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.ptr) - 1

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(M,), atoms of each molecule."""
        return np.diff(self.ptr)

    def smiles(self, i: int) -> str:
        """SMILES of one molecule.

        Args:
            i: Its place, from 0.

        Returns:
            The text of the tables.
        """
        return self._text(2 * range(len(self))[i])

    def inchi(self, i: int) -> str:
        """InChI of one molecule.

        Args:
            i: Its place, from 0.

        Returns:
            The text of the tables.
        """
        return self._text(2 * range(len(self))[i] + 1)

    def molecule(self, i: int) -> Molecule:
        """One molecule.

        Args:
            i: Its place, from 0.

        Returns:
            Its elements and positions (those of the cache, rounded to float32).
        """
        i = range(len(self))[i]
        atoms = slice(self.ptr[i], self.ptr[i + 1])
        name = f"dsgdb9nsd_{self.index[i]:06d}"
        numbers = self.numbers[atoms].astype(np.int64)
        return Molecule(numbers, self.positions[atoms].astype(np.float64), "dft", name)

    def counts(self) -> Floats:
        """Composition; computed once.

        Returns:
            (M, MAX_NUMBER + 1), atoms of each atomic number; read-only.
        """
        return self._counts

    @cached_property
    def _counts(self) -> Floats:
        width = MAX_NUMBER + 1
        molecule_of = np.repeat(np.arange(len(self)), self.sizes)
        flat = np.bincount(molecule_of * width + self.numbers, minlength=len(self) * width)
        return _read_only(flat.reshape(-1, width).astype(np.float64))

    def truth(self) -> Floats:
        """The 19 targets as the tables have them; computed once: every trial of a study asks.

        Returns:
            (M, 19), in the order of `properties.TARGETS` and in their units; read-only.
            Atomization energies, which the tables do not list, are the tables' totals minus the
            free atoms.
        """
        return self._truth

    @cached_property
    def _truth(self) -> Floats:
        listed = self._listed()
        learned = {name: listed[name] for name in LEARNED}
        values = targets.derive(learned, self.counts(), self.rotational_ghz)
        free = self.counts() @ targets.free_atom_energies_ev("h")
        values = {**values, **listed, "h_atom": listed["h"] - free}
        return _read_only(np.column_stack([values[name] for name in TARGETS]))

    def derived(self) -> Floats:
        """The 19 targets with all derivable ones derived: gap, H, atomization, A, B, C.

        Returns:
            (M, 19), in the order of `properties.TARGETS` and in their units.
        """
        listed = self._listed()
        learned = {name: listed[name] for name in LEARNED}
        values = targets.derive(learned, self.counts(), self.rotational_ghz)
        return np.column_stack([values[name] for name in TARGETS])

    def _listed(self) -> dict[str, Floats]:
        """The 15 targets that the tables list, in the targets' units."""
        columns_of = {name: self.raw[:, i] for i, name in enumerate(RAW_COLUMNS)}
        return {
            item.name: columns_of[item.raw_column] * item.raw_to_unit
            for item in PROPERTIES
            if item.raw_column
        }

    def _text(self, i: int) -> str:
        return self.texts[self.text_ptr[i] : self.text_ptr[i + 1]].tobytes().decode()


def cache_dir() -> Path:
    """The folder for everything that can be made anew.

    Returns:
        As `locations.cache_folder` says.
    """
    return cache_folder()


def _folder(cache: Path | None) -> Path:
    return (cache or cache_dir()) / _FOLDER


def other_caches(dataset: Dataset) -> list[Path]:
    """Caches of QM9 beside a dataset's, made by versions of qm9flow with another format.

    Args:
        dataset: QM9.

    Returns:
        Their folders. This version does not read them.
    """
    beside = dataset.folder.parent
    found = {path for pattern in _FOLDERS for path in beside.glob(pattern)}
    return sorted(path for path in found - {dataset.folder} if (path / columns.MANIFEST).is_file())


def open_dataset(cache: Path | None = None, progress: Progress | None = None) -> Dataset:
    """QM9, prepared if it has not been.

    Args:
        cache: Folder to keep it in; None means `cache_dir()`.
        progress: Called while it is prepared.

    Returns:
        All molecules, memory-mapped.

    Raises:
        DataError: The tables are missing or changed, or the cache cannot be written.
    """
    folder = _folder(cache)
    try:
        return load_dataset(folder.parent)
    except FileNotFoundError:
        pass
    except CacheError as error:
        logger.warning("preparing QM9 anew: %s", error)
    return prepare(folder.parent, progress)


def load_dataset(cache: Path | None = None) -> Dataset:
    """QM9 as it was prepared.

    Args:
        cache: Folder that it is kept in; None means `cache_dir()`.

    Returns:
        All molecules, memory-mapped.

    Raises:
        FileNotFoundError: It has not been prepared.
        CacheError: The cache is damaged, of another format, or made from other tables.
    """
    folder = _folder(cache)
    arrays, manifest = columns.read(folder)
    if manifest.get("tables") != source.TABLES or "digest" not in manifest:
        raise CacheError(f"the cache {folder} was made from other tables: {columns.REBUILD}")
    try:
        return Dataset(digest=manifest["digest"], folder=folder, **arrays)
    except TypeError as error:
        raise CacheError(
            f"the cache {folder} holds other arrays ({error}): {columns.REBUILD}"
        ) from error


def prepare(
    cache: Path | None = None, progress: Progress | None = None, replace: bool = False
) -> Dataset:
    """Make the cache from the tables, over a damaged one if there is one.

    Args:
        cache: Folder to keep it in; None means `cache_dir()`.
        progress: Called while it is prepared.
        replace: Replace a good one too.

    Returns:
        All molecules, memory-mapped.

    Raises:
        SourceMissingError: The tables are missing.
        SourceCorruptError: A table was changed or cut short.
        CacheError: The cache cannot be written.
    """
    folder = _folder(cache)
    columns.require_writable(folder)
    arrays = _arrays(source.read_records(source.find_tables(), progress))
    if progress is not None:
        progress(f"writing {folder}", 0, 1)
    hashes = {name: columns.array_hash(arrays[name]) for name in arrays if name not in _COMPUTED}
    facts = {"digest": columns.content_digest(hashes), "tables": source.TABLES}
    columns.write(folder, arrays, facts, replace)
    if progress is not None:
        progress(f"writing {folder}", 1, 1)
    return load_dataset(folder.parent)


def is_prepared(cache: Path | None = None) -> bool:
    """Whether there is a cache, in whatever state.

    Args:
        cache: Folder that it is kept in; None means `cache_dir()`.

    Returns:
        Whether its folder is there.
    """
    return _folder(cache).exists()


def verify(cache: Path | None = None) -> Dataset:
    """QM9 as it was prepared, after comparing every byte with the recorded hashes.

    Args:
        cache: Folder that it is kept in; None means `cache_dir()`.

    Returns:
        All molecules, memory-mapped.

    Raises:
        CacheError: It has not been prepared, or is damaged.
    """
    folder = _folder(cache)
    try:
        dataset = load_dataset(folder.parent)
    except FileNotFoundError as error:
        raise CacheError(
            f"there is no cache {folder}: make it with `qm9flow data prepare`"
        ) from error
    columns.verify(folder)
    return dataset


def _read_only(values: Floats) -> Floats:
    values.setflags(write=False)
    return values


def _pointers(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _arrays(records: source.Records) -> dict[str, npt.NDArray[Any]]:
    ptr = _pointers(records.sizes)
    texts = [
        text.encode() for pair in zip(records.smiles, records.inchi, strict=True) for text in pair
    ]
    return {
        "index": records.index,
        "numbers": records.numbers,
        "positions": records.positions.astype(np.float32),
        "ptr": ptr,
        "raw": records.raw,
        "rotational_ghz": rotational_constants_ragged(records.numbers, records.positions, ptr),
        "extents": nuclear_extents(records.numbers, records.positions, ptr),
        "charges": records.charges.astype(np.float32),
        "frequencies": records.frequencies.astype(np.float32),
        "frequency_ptr": _pointers(records.n_frequencies),
        "polarizability": records.polarizability.astype(np.float32),
        "texts": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "text_ptr": _pointers(np.array([len(text) for text in texts])),
    }
