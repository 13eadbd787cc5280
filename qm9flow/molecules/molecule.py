"""A molecule as the networks see it: elements and geometry, nothing else."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.elements import ELEMENTS, NUMBERS, SYMBOL_OF
from qm9flow.errors import (
    CoincidentAtomsError,
    EmptyMoleculeError,
    NonFiniteError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)

Geometry = GeometrySource

MIN_DISTANCE_ANGSTROM = 0.5
"""Atoms nearer than this count as being in one place: the shortest bond in QM9 has 0.96, that of
H2 0.74, and networks give nonsense for much less."""

RT_KCAL = 0.5925
"""R T at 298.15 K, kcal/mol."""

MAX_COORDINATE_ANGSTROM = 1e4
"""Further out, float32 no longer holds a position to 1e-3 angstrom."""


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule.

    Attributes:
        numbers: (n_atoms,), int64, atomic numbers.
        positions: (n_atoms, 3), float64, angstrom.
        geometry: Where the positions come from: `dft` as in QM9 (B3LYP/6-31G(2df,p) minima),
            `approximate` from something cheaper, `smiles` made from a SMILES.
        name: Whatever the user calls it.
    """

    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]
    geometry: Geometry = "dft"
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", np.asarray(self.numbers, dtype=np.int64))
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64))

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.numbers)


@dataclass(frozen=True, eq=False)
class Conformers:
    """Geometries of one molecule, that of the lowest energy first.

    Attributes:
        numbers: (n_atoms,), int64, atomic numbers.
        positions: (k, n_atoms, 3), float64, angstrom.
        energies: (k,), float64, kcal/mol, of a force field: to be compared with each other only.
        name: The SMILES.
        isomers: Stereoisomers that they are of, mirror images counted as one: more than 1 where
            the SMILES leaves open which is meant.
    """

    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]
    energies: npt.NDArray[np.float64]
    name: str
    isomers: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", np.asarray(self.numbers, dtype=np.int64))
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.float64))
        object.__setattr__(self, "energies", np.asarray(self.energies, dtype=np.float64))

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def molecules(self) -> tuple["Molecule", ...]:
        """Each geometry by itself."""
        return tuple(
            Molecule(self.numbers, positions, "smiles", self.name) for positions in self.positions
        )

    @property
    def lowest(self) -> Molecule:
        """The one of the lowest energy."""
        return self.molecules[0]

    @property
    def geometry(self) -> Geometry:
        """Where the positions come from."""
        return "smiles"

    def weights(self) -> npt.NDArray[np.float64]:
        """How much each counts in an average: Boltzmann factors at 298.15 K.

        Returns:
            (k,), they add up to 1.
        """
        factors = np.exp(-(self.energies - self.energies.min()) / RT_KCAL)
        return np.asarray(factors / factors.sum())


_NUMBERS = frozenset(NUMBERS)

Structure = Molecule | Conformers
"""What a prediction is made of: one geometry, or several of one molecule."""


def validate(molecule: Molecule, max_atoms: int) -> None:
    """Refuse a molecule that a network must not see.

    Args:
        molecule: What to look at.
        max_atoms: Most atoms allowed.

    Raises:
        EmptyMoleculeError: It has no atoms.
        UnreadableError: Its arrays do not belong together.
        TooLargeError: It has more than `max_atoms` atoms.
        UnsupportedElementError: An element that QM9 does not hold.
        NonFiniteError: A coordinate is not finite, or too large for float32.
        CoincidentAtomsError: Two atoms in one place.
    """
    numbers, positions = molecule.numbers, molecule.positions
    if numbers.ndim != 1 or len(numbers) == 0:
        raise EmptyMoleculeError("the molecule has no atoms: give at least one")
    if positions.shape != (len(numbers), 3):
        raise UnreadableError(
            f"{len(numbers)} atoms need positions of shape ({len(numbers)}, 3), "
            f"got {positions.shape}"
        )
    if len(numbers) > max_atoms:
        raise TooLargeError(f"the molecule has {len(numbers)} atoms; the limit is {max_atoms}")
    _refuse_elements(numbers)
    _refuse_coordinates(numbers, positions)
    _refuse_coincident(numbers, positions)


def validate_conformers(conformers: Conformers) -> None:
    """Refuse conformers that do not belong together; `validate` looks at each geometry.

    Args:
        conformers: What to look at.

    Raises:
        EmptyMoleculeError: There is no geometry.
        UnreadableError: There is not one energy for each.
        NonFiniteError: An energy is not finite.
    """
    count, energies = len(conformers.positions), conformers.energies
    if count == 0:
        raise EmptyMoleculeError("the molecule has no geometry: give at least one conformer")
    if energies.shape != (count,):
        raise UnreadableError(
            f"{count} conformers need energies of shape ({count},), got {energies.shape}"
        )
    if not np.isfinite(energies).all():
        raise NonFiniteError(f"the energies of the conformers are {energies.tolist()}")


def _label(numbers: npt.NDArray[np.int64], atom: int) -> str:
    return f"atom {atom + 1} ({SYMBOL_OF[int(numbers[atom])]})"


def _refuse_elements(numbers: npt.NDArray[np.int64]) -> None:
    if not set(numbers.tolist()) <= _NUMBERS:
        unknown = np.flatnonzero(~np.isin(numbers, NUMBERS))
        known = ", ".join(element.symbol for element in ELEMENTS)
        raise UnsupportedElementError(
            f"atom {unknown[0] + 1} has the atomic number {numbers[unknown[0]]}; "
            f"QM9 holds only {known}"
        )


def _refuse_coordinates(numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> None:
    if np.abs(positions).max() <= MAX_COORDINATE_ANGSTROM:
        return  # neither NaN nor infinite
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise NonFiniteError(
            f"{_label(numbers, bad[0])} has the position {positions[bad[0]].tolist()}; "
            "coordinates must be finite numbers in angstrom"
        )
    far = np.flatnonzero((np.abs(positions) > MAX_COORDINATE_ANGSTROM).any(axis=1))
    if len(far):
        raise NonFiniteError(
            f"{_label(numbers, far[0])} has the position {positions[far[0]].tolist()}, beyond "
            f"{MAX_COORDINATE_ANGSTROM:,.0f} angstrom: move the molecule to the origin"
        )


def _refuse_coincident(numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float64]) -> None:
    near = _squared_distances(positions) < (1.1 * MIN_DISTANCE_ANGSTROM) ** 2
    if np.count_nonzero(near) == len(numbers):  # each atom to itself
        return
    distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    first, second = np.nonzero(np.triu(distances < MIN_DISTANCE_ANGSTROM, k=1))
    if len(first):
        i, j = int(first[0]), int(second[0])
        raise CoincidentAtomsError(
            f"{_label(numbers, i)} and {_label(numbers, j)} are {distances[i, j]:.3g} angstrom "
            f"apart; atoms must be at least {MIN_DISTANCE_ANGSTROM} angstrom apart"
        )


def _squared_distances(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, N), axis by axis: a third of the time that a norm takes."""
    x, y, z = ((axis[:, None] - axis) ** 2 for axis in positions.T)
    return np.asarray(x + y + z)
