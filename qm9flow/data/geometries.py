"""The geometries that a network may be shown: QM9's own, or those that users have."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.data.conformers import kind_of
from qm9flow.data.geometry_set import GeometrySet
from qm9flow.data.relaxed import KIND as RELAXED
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident import Atoms
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError
from qm9flow.molecules.geometry import nuclear_extents, rotational_constants_ragged
from qm9flow.molecules.pool import CONFORMERS

SAME_KCAL = 1e-3
"""Minima of one molecule whose energies differ by less are the same one. Of 2,699 such pairs, of
3,000 validation molecules, 99.9% are alike to 0.1 angstrom in their distances; of 299 pairs that
differ by 1e-3 to 0.05, a third."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class AtomArrays:
    """Geometries that were made of others: `Atoms` that are nothing else.

    Attributes:
        ptr: (G + 1,), geometry g has the atoms ptr[g] to ptr[g + 1] - 1.
        numbers: (A,), atomic numbers.
        positions: (A, 3), angstrom.
    """

    ptr: Indices
    numbers: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Geometries:
    """Geometries of QM9's molecules from one source.

    Attributes:
        atoms: The geometries, one after another.
        first: (M + 1,), molecule i has the geometry first[i], if first[i + 1] is another one.
        extents: (G,), nuclear extent, bohr^2.
        rotational_ghz: (G, 3), A, B and C.
    """

    atoms: Atoms
    first: Indices
    extents: Floats
    rotational_ghz: Floats

    @classmethod
    def measured(cls, atoms: Atoms, first: Indices) -> "Geometries":
        """Geometries of which nothing but the atoms is known.

        Args:
            atoms: The geometries, one after another.
            first: (M + 1,), as in the class.

        Returns:
            They, with extents and rotational constants.
        """
        ragged = atoms.numbers, atoms.positions.astype(np.float64), atoms.ptr
        return cls(atoms, first, nuclear_extents(*ragged), rotational_constants_ragged(*ragged))

    def known(self, molecules: Indices) -> Indices:
        """Those of some molecules that have a geometry.

        Args:
            molecules: (n,), places in the dataset.

        Returns:
            (up to n,), in the same order.
        """
        return np.asarray(molecules)[np.diff(self.first)[molecules] > 0]

    def of(self, molecules: Indices) -> Indices:
        """The geometries of molecules.

        Args:
            molecules: (n,), places in the dataset; all of them have one.

        Returns:
            (n,), places among the geometries.
        """
        return self.first[molecules]


def open_geometries(source: GeometrySource, dataset: Dataset) -> Geometries:
    """The geometries of a source.

    Args:
        source: Which.
        dataset: QM9.

    Returns:
        Those of all of QM9's molecules that have one.

    Raises:
        CacheError: They have not been made yet, or are damaged; the message says what to do.
    """
    if source == "dft":
        first = np.arange(len(dataset) + 1)
        return Geometries(dataset, first, dataset.extents, dataset.rotational_ghz)
    made = open_relaxed(dataset)
    return Geometries.measured(made, made.first)


def require_geometries(source: GeometrySource, dataset: Dataset) -> None:
    """Find out before the work begins whether there is what a network is to see.

    Args:
        source: Which.
        dataset: QM9.

    Raises:
        CacheError: Something has not been made yet; the message names all commands.
    """
    needed = [] if source == "dft" else [kind_of(CONFORMERS), RELAXED]
    missing = [kind for kind in needed if not kind.folder(dataset).exists()]
    if missing:
        commands = " and ".join(f"`{kind.command}`" for kind in missing)
        raise CacheError(
            f"a training on {source} geometries needs some that are not there yet: {commands} "
            "make them"
        )


@dataclass(frozen=True, eq=False)
class Candidates:
    """Minima of a force field, among which each molecule's own is to be told.

    Attributes:
        atoms: The geometries, one after another.
        first: (M + 1,), molecule i has the candidates first[i] to first[i + 1] - 1.
        places: (C,), the geometry of each candidate, those of a molecule by rising energy.
        energies: (C,), kcal/mol.
        is_known: (C,), whether it is the one that QM9's own geometry relaxes to.
    """

    atoms: Atoms
    first: Indices
    places: Indices
    energies: npt.NDArray[np.float32]
    is_known: npt.NDArray[np.bool_]

    @property
    def tells(self) -> npt.NDArray[np.bool_]:
        """(M,), whether QM9's own is among several."""
        return np.asarray((np.diff(self.first) > 1) & (_of_each(self.is_known, self.first) > 0))


def candidates(
    conformers: GeometrySet, relaxed: GeometrySet, *, are_completed: bool = False
) -> Candidates:
    """The conformers of each molecule.

    Args:
        conformers: From SMILES.
        relaxed: QM9's geometries in the same force field.
        are_completed: Add QM9's own minimum where the starts of a molecule missed it.

    Returns:
        All of them; none for a molecule that has no conformers.
    """
    known = is_the_one(conformers, relaxed)
    counts = np.diff(conformers.first)
    missed = (counts > 0) & (_of_each(known, conformers.first) == 0) & (np.diff(relaxed.first) > 0)
    added = np.flatnonzero(missed & are_completed)
    own = relaxed.first[added]
    owner = np.concatenate([np.repeat(np.arange(len(conformers)), counts), added])
    energies = np.concatenate([conformers.energies, relaxed.energies[own]])
    order = np.lexsort((energies, owner))
    geometries = len(conformers.ptr) - 1
    return Candidates(
        _joined(conformers, relaxed) if len(added) else conformers,
        np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(conformers)))]),
        np.concatenate([np.arange(geometries), geometries + own])[order],
        energies[order],
        np.concatenate([known, np.ones(len(added), dtype=bool)])[order],
    )


def _joined(some: Atoms, others: Atoms) -> AtomArrays:
    return AtomArrays(
        np.concatenate([some.ptr, some.ptr[-1] + others.ptr[1:]]),
        np.concatenate([some.numbers, others.numbers]),
        np.concatenate([some.positions, others.positions]),
    )


def _of_each(flags: npt.NDArray[np.bool_], first: Indices) -> Indices:
    """(M,), how many of each molecule's are true."""
    sums = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(np.diff(sums[first]))


def is_the_one(conformers: GeometrySet, relaxed: GeometrySet) -> npt.NDArray[np.bool_]:
    """Which conformers are the minimum that QM9's own geometry relaxes to.

    Args:
        conformers: From SMILES.
        relaxed: QM9's geometries in the same force field.

    Returns:
        (G,); all False for a molecule whose minimum was not found.
    """
    counts = np.diff(conformers.first)
    own = np.full(len(conformers), np.nan)
    has = np.diff(relaxed.first) > 0
    own[has] = relaxed.energies[relaxed.first[:-1][has]]
    return np.asarray(np.abs(conformers.energies - np.repeat(own, counts)) < SAME_KCAL)
