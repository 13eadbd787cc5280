"""A quick look at many geometries at once: which of them need a closer one.

`validate` and `domain.doubts` look at one molecule, and say what is wrong with it. Hardly any has
anything wrong, so that all are looked at together first, and those alone singly that may be odd:
of a request of 64 molecules, all that is done for each costs more than the network.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from qm9flow.elements import MAX_NUMBER, NUMBERS
from qm9flow.inference.domain import (
    APART_ANGSTROM,
    QM9_MAX_ATOMS,
    QM9_MAX_HEAVY,
    QM9_MIN_ATOMS,
)
from qm9flow.molecules.molecule import (
    MAX_COORDINATE_ANGSTROM,
    MIN_DISTANCE_ANGSTROM,
    Molecule,
)

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MAX_PAIRS = 1_000_000
"""Pairs of atoms, padding included, that are looked at together: some tens of megabytes."""

_MARGIN = 1e-6
"""Relative: what lies so near to a limit is looked at singly, where the limit is applied."""

_IS_KNOWN = np.isin(np.arange(MAX_NUMBER + 1), NUMBERS)


def flawless(molecules: Sequence[Molecule], max_atoms: int) -> Flags:
    """Which geometries `validate` is sure to accept.

    Args:
        molecules: Any number, whatever their arrays hold.
        max_atoms: Most atoms allowed.

    Returns:
        (n,); False says nothing.
    """
    is_sound = np.array([_is_shaped(molecule, max_atoms) for molecule in molecules], dtype=bool)
    for some, is_atom, numbers, positions in _chunks(molecules, np.flatnonzero(is_sound)):
        inside = np.abs(positions) <= MAX_COORDINATE_ANGSTROM * (1 - _MARGIN)
        limited = np.where(inside, positions, 0.0)
        squared = _squared_distances(limited, is_atom)
        least = (MIN_DISTANCE_ANGSTROM * (1 + _MARGIN)) ** 2
        known = _IS_KNOWN[np.clip(numbers, 0, MAX_NUMBER)]
        known &= (numbers >= 0) & (numbers <= MAX_NUMBER)
        is_sound[some] = (
            inside.all(axis=(1, 2))
            & (known | ~is_atom).all(axis=1)
            & (squared >= least).all(axis=(1, 2))
        )
    return is_sound


def ordinary(molecules: Sequence[Molecule], cutoff_angstrom: float | None) -> Flags:
    """Which geometries `domain.doubts` is sure to have nothing to say of.

    Args:
        molecules: Valid ones.
        cutoff_angstrom: As there.

    Returns:
        (n,); False says nothing.
    """
    found = np.zeros(len(molecules), dtype=bool)
    sizes = np.array([len(molecule) for molecule in molecules])
    usual = np.flatnonzero((sizes >= QM9_MIN_ATOMS) & (sizes <= QM9_MAX_ATOMS))
    reach = min(APART_ANGSTROM, cutoff_angstrom or APART_ANGSTROM) * (1 - _MARGIN)
    for some, is_atom, numbers, positions in _chunks(molecules, usual):
        near = _squared_distances(positions, is_atom) < reach**2
        found[some] = (
            (numbers.sum(axis=1) % 2 == 0)
            & ((numbers > 1).sum(axis=1) <= QM9_MAX_HEAVY)
            & (_reached(near) | ~is_atom).all(axis=1)
        )
    return found


def _is_shaped(molecule: Molecule, max_atoms: int) -> bool:
    numbers, positions = molecule.numbers, molecule.positions
    return (
        numbers.ndim == 1 and 0 < len(numbers) <= max_atoms and positions.shape == (len(numbers), 3)
    )


def _chunks(
    molecules: Sequence[Molecule], places: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], Flags, npt.NDArray[np.int64], Floats]]:
    """Places, (B, N) where there are atoms, (B, N) numbers, (B, N, 3) positions, angstrom."""
    if not len(places):
        return
    width = max(len(molecules[i]) for i in places)
    step = max(1, MAX_PAIRS // width**2)
    for start in range(0, len(places), step):
        some = places[start : start + step]
        chosen = [molecules[i] for i in some]
        sizes = np.array([len(molecule) for molecule in chosen])
        is_atom = np.arange(sizes.max()) < sizes[:, None]
        numbers = np.zeros(is_atom.shape, dtype=np.int64)
        positions = np.zeros((*is_atom.shape, 3))
        numbers[is_atom] = np.concatenate([molecule.numbers for molecule in chosen])
        positions[is_atom] = np.concatenate([molecule.positions for molecule in chosen])
        yield some, is_atom, numbers, positions


def _squared_distances(positions: Floats, is_atom: Flags) -> Floats:
    """(B, N, N), infinite where there are not two different atoms."""
    squared = np.zeros((*is_atom.shape, is_atom.shape[1]))
    for axis in range(3):
        along = positions[:, :, axis]
        squared += (along[:, :, None] - along[:, None, :]) ** 2
    squared[~(is_atom[:, :, None] & is_atom[:, None, :])] = np.inf
    squared[:, np.arange(is_atom.shape[1]), np.arange(is_atom.shape[1])] = np.inf
    return squared


def _reached(near: Flags) -> Flags:
    """(B, N), which atoms hang together with the first one."""
    steps = near.astype(np.float32)
    reached = np.zeros(near.shape[:2], dtype=np.float32)
    reached[:, 0] = 1
    while True:
        wider = np.minimum(reached + (steps @ reached[:, :, None])[:, :, 0], 1)
        if (wider == reached).all():
            return reached > 0
        reached = wider
