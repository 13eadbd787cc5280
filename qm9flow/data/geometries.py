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

SAME_KCAL = 0.05
"""Minima of one molecule whose energies differ by less are the same one."""

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


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
    atoms = made.numbers, made.positions.astype(np.float64), made.ptr
    return Geometries(
        made, made.first, nuclear_extents(*atoms), rotational_constants_ragged(*atoms)
    )


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
