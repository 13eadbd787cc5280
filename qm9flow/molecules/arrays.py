"""Molecules from arrays: atomic numbers and positions."""

import math
from itertools import chain
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from qm9flow.elements import NUMBERS, SYMBOL_OF
from qm9flow.errors import (
    InvalidRecordError,
    NonFiniteError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)
from qm9flow.molecules.given import KNOWN, shown
from qm9flow.molecules.molecule import Geometry, Molecule, validate
from qm9flow.molecules.pool import MAX_ATOMS

_KNOWN_NUMBERS = frozenset(NUMBERS)
_LARGEST = 10**9
"""Larger coordinates are not even read."""


def from_arrays(
    numbers: Any,
    positions: Any,
    geometry: Geometry = "dft",
    *,
    max_atoms: int = MAX_ATOMS,
    name: str = "",
) -> Molecule:
    """A molecule from atomic numbers and positions.

    Args:
        numbers: (n_atoms,), a list or array of integers.
        positions: (n_atoms, 3), a list or array of numbers, angstrom.
        geometry: Where the positions come from: `dft` or `approximate`.
        max_atoms: Most atoms allowed.
        name: Whatever the user calls it.

    Returns:
        The molecule.

    Raises:
        MoleculeError: The arrays cannot be read, or are a molecule that is refused.
    """
    if geometry not in get_args(Geometry):
        raise InvalidRecordError(
            f"geometry must be one of {', '.join(get_args(Geometry))}, got {shown(geometry)}"
        )
    numbers, positions = _plain_list(numbers, "numbers"), _plain_list(positions, "positions")
    if len(numbers) > max_atoms:
        raise TooLargeError(f"the molecule has {len(numbers)} atoms; the limit is {max_atoms}")
    if len(numbers) != len(positions):
        raise UnreadableError(
            f"numbers names {len(numbers)} atoms, positions {len(positions)}: both must name the "
            "same atoms"
        )
    shaped = _plain_array(numbers, positions)
    if shaped is None:
        shaped = _array_of(numbers, positions)
    molecule = Molecule(np.array(numbers, dtype=np.int64), shaped, geometry, name)
    validate(molecule, max_atoms)
    return molecule


def _plain_list(values: Any, what: str) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        raise UnreadableError(f"{what} must be a list, got {shown(values)}")
    return list(values)


def _plain_array(numbers: list[Any], positions: list[Any]) -> npt.NDArray[np.float64] | None:
    """(N, 3), at once; None where something may have to be said of an atom."""
    if not (set(map(type, numbers)) == {int} and _KNOWN_NUMBERS.issuperset(numbers)):
        return None
    if not set(map(type, positions)) <= {list, tuple} or set(map(len, positions)) != {3}:
        return None
    if not set(map(type, chain.from_iterable(positions))) <= {float, int}:
        return None
    try:
        found = np.array(positions, dtype=np.float64)
    except OverflowError:
        return None
    return found if (np.abs(found) <= _LARGEST).all() else None


def _array_of(numbers: list[Any], positions: list[Any]) -> npt.NDArray[np.float64]:
    """(N, 3), atom by atom, to say which one is wrong."""
    for atom, number in enumerate(numbers, start=1):
        if type(number) is not int or number not in NUMBERS:
            raise UnsupportedElementError(
                f"atom {atom} has the atomic number {shown(number)}; QM9 holds only {KNOWN} "
                f"({', '.join(map(str, NUMBERS))})"
            )
    rows = [
        _position(row, f"atom {atom} ({SYMBOL_OF[number]})")
        for atom, (number, row) in enumerate(zip(numbers, positions, strict=True), start=1)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 3)


def _position(row: Any, where: str) -> list[float]:
    if not isinstance(row, list | tuple) or len(row) != 3:
        raise UnreadableError(f"{where}: a position is [x, y, z], got {shown(row)}")
    for value in row:
        if type(value) is int and abs(value) > _LARGEST:
            raise NonFiniteError(f"{where}: the coordinate {shown(value)} is too large")
        if type(value) not in (int, float) or not math.isfinite(value):
            raise NonFiniteError(f"{where}: the coordinate {shown(value)} is no finite number")
    return [float(value) for value in row]
