"""The geometries that a network may be shown: QM9's own, or those that users have."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.data.conformers import kind_of, open_conformers
from qm9flow.data.geometry_set import GeometrySet
from qm9flow.data.relaxed import KIND as RELAXED
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident import Atoms
from qm9flow.data.store import Dataset
from qm9flow.errors import CacheError
from qm9flow.molecules.geometry import nuclear_extents, rotational_constants_ragged
from qm9flow.molecules.molecule import RT_KCAL
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
        first: (M + 1,), molecule i has the geometries first[i] to first[i + 1] - 1, the best one
            first; some molecules may have none.
        extents: (G,), nuclear extent, bohr^2.
        rotational_ghz: (G, 3), A, B and C.
        shares: (G,), how often each is drawn in training; they add up to 1 for each molecule.
    """

    atoms: Atoms
    first: Indices
    extents: Floats
    rotational_ghz: Floats
    shares: Floats

    def known(self, molecules: Indices) -> Indices:
        """Those of some molecules that have a geometry.

        Args:
            molecules: (n,), places in the dataset.

        Returns:
            (up to n,), in the same order.
        """
        return np.asarray(molecules)[np.diff(self.first)[molecules] > 0]

    def best(self, molecules: Indices) -> Indices:
        """One geometry of each molecule.

        Args:
            molecules: (n,), places in the dataset; all of them have one.

        Returns:
            (n,), places among the geometries.
        """
        return self.first[molecules]

    def likeliest(self, molecules: Indices) -> Indices:
        """The geometry of each molecule that is drawn most often.

        Args:
            molecules: (n,), places in the dataset; all of them have one.

        Returns:
            (n,), places among the geometries.
        """
        places, starts = self.all_of(molecules)
        # stable: the last of a molecule after sorting by share is its likeliest
        owner = np.repeat(np.arange(len(molecules)), np.diff(starts))
        order = np.lexsort((-np.arange(len(places)), self.shares[places], owner))
        return places[order[starts[1:] - 1]]

    def all_of(self, molecules: Indices) -> tuple[Indices, Indices]:
        """All geometries of some molecules.

        Args:
            molecules: (n,), places in the dataset.

        Returns:
            (g,), places among the geometries, and (n + 1,), where among those each molecule begins.
        """
        counts = np.diff(self.first)[molecules]
        starts = np.concatenate([[0], np.cumsum(counts)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return np.repeat(self.first[molecules], counts) + within, starts


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
        shares = np.ones(len(dataset))
        return Geometries(dataset, first, dataset.extents, dataset.rotational_ghz, shares)
    relaxed = open_relaxed(dataset)
    made = open_conformers(dataset) if source == "smiles" else relaxed
    atoms = made.numbers, made.positions.astype(np.float64), made.ptr
    shares = conformer_shares(made, relaxed) if source == "smiles" else np.ones(len(made.energies))
    return Geometries(
        made, made.first, nuclear_extents(*atoms), rotational_constants_ragged(*atoms), shares
    )


def require_geometries(source: GeometrySource, dataset: Dataset) -> None:
    """Find out before the work begins whether there is what a network is to see.

    Args:
        source: Which.
        dataset: QM9.

    Raises:
        CacheError: Something has not been made yet; the message names all commands.
    """
    both = [kind_of(CONFORMERS), RELAXED]
    needed = {"dft": [], "approximate": both, "smiles": both}
    missing = [kind for kind in needed[source] if not kind.folder(dataset).exists()]
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


def conformer_shares(conformers: GeometrySet, relaxed: GeometrySet) -> Floats:
    """How likely each conformer is the one that a molecule has in QM9.

    A network that sees conformers in these shares learns what its values mean: those of the
    molecule if this is its conformer.

    Args:
        conformers: From SMILES.
        relaxed: QM9's geometries in the same force field.

    Returns:
        (G,), 1 for the one where it is known, else Boltzmann's factors.
    """
    counts = np.diff(conformers.first)
    owner = np.repeat(np.arange(len(conformers)), counts)
    lowest = conformers.energies[conformers.first[:-1][counts > 0]]
    above = conformers.energies.astype(np.float64) - np.repeat(lowest, counts[counts > 0])
    is_known = is_the_one(conformers, relaxed)
    has_known = np.bincount(owner[is_known], minlength=len(conformers)) > 0
    shares = np.where(has_known[owner], is_known, np.exp(-above / RT_KCAL))
    return np.asarray(shares / np.bincount(owner, shares, len(conformers))[owner])
