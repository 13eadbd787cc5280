"""The geometries that a network may be shown: QM9's own, or those that users have."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.data.conformers import open_conformers
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident import Atoms
from qm9flow.data.store import Dataset
from qm9flow.molecules.geometry import nuclear_extents, rotational_constants_ragged

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

    def best(self, molecules: Indices) -> Indices:
        """One geometry of each molecule.

        Args:
            molecules: (n,), places in the dataset; all of them have one.

        Returns:
            (n,), places among the geometries.
        """
        return self.first[molecules]

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
        return Geometries(dataset, first, dataset.extents, dataset.rotational_ghz)
    made = open_conformers(dataset) if source == "smiles" else open_relaxed(dataset)
    atoms = made.numbers, made.positions.astype(np.float64), made.ptr
    return Geometries(
        made, made.first, nuclear_extents(*atoms), rotational_constants_ragged(*atoms)
    )
