"""What follows from a geometry alone: rotational constants, nuclear extent.

Source: any text on molecular spectroscopy, such as P. W. Atkins, R. S. Friedman, Molecular Quantum
Mechanics, 5th ed. (2011), chapter 10: A = h / (8 pi^2 I_A) with I_A <= I_B <= I_C the principal
moments of inertia. Masses are those of the most abundant isotopes, as in QM9.
"""

import numpy as np
import numpy.typing as npt

from qm9flow import elements
from qm9flow.units import BOHR_ANGSTROM, ROTATIONAL_GHZ_U_A2

LINEAR_RATIO = 1e-6
"""Below this I_A / I_B a molecule counts as linear, and A is written as 0, as QM9 does."""

_POINT_U_A2 = 1e-9
"""Rounding leaves a single atom a moment below this; two H atoms 0.5 angstrom apart have 0.13."""

Floats = npt.NDArray[np.float64]


def rotational_constants_ragged(
    numbers: npt.NDArray[np.integer], positions: Floats, ptr: npt.NDArray[np.integer]
) -> Floats:
    """Rotational constants of molecules that lie one after another.

    Args:
        numbers: (n_atoms_total,), atomic numbers.
        positions: (n_atoms_total, 3), angstrom.
        ptr: (n_molecules + 1,), molecule i has the atoms ptr[i] to ptr[i + 1] - 1; none is empty.

    Returns:
        (n_molecules, 3), A >= B >= C in GHz; all 0 for single atoms, A = 0 for linear molecules.
    """
    starts, sizes = np.asarray(ptr[:-1]), np.diff(ptr)
    if len(sizes) == 0:
        return np.zeros((0, 3))
    positions = np.asarray(positions, dtype=np.float64)
    masses = elements.by_number("mass_u")[numbers]
    totals = np.add.reduceat(masses, starts)
    # axis by axis: sums along contiguous memory are three times as fast
    x, y, z = (
        axis - np.repeat(np.add.reduceat(masses * axis, starts) / totals, sizes)
        for axis in np.ascontiguousarray(positions.T)
    )
    products = (x * x, y * y, z * z, x * y, x * z, y * z)
    xx, yy, zz, xy, xz, yz = (np.add.reduceat(masses * product, starts) for product in products)
    inertia = np.stack([yy + zz, -xy, -xz, -xy, xx + zz, -yz, -xz, -yz, xx + yy], axis=1)
    return _constants(np.linalg.eigvalsh(inertia.reshape(-1, 3, 3)))


def _constants(moments: Floats) -> Floats:
    """(n_molecules, 3) in GHz from the principal moments, ascending, u angstrom^2."""
    is_point = moments[:, 2] < _POINT_U_A2
    is_linear = moments[:, 0] < LINEAR_RATIO * moments[:, 1]
    absent = np.stack([is_point | is_linear, is_point, is_point], axis=1)
    constants = np.zeros_like(moments)
    np.divide(ROTATIONAL_GHZ_U_A2, moments, out=constants, where=~absent)
    return constants


def nuclear_extents(
    numbers: npt.NDArray[np.integer], positions: Floats, ptr: npt.NDArray[np.integer]
) -> Floats:
    """Spatial extent of the nuclear charge, of molecules that lie one after another.

    sum_i Z_i |r_i - c|^2 with c = sum_i Z_i r_i / sum_i Z_i.

    Args:
        numbers: (n_atoms_total,), atomic numbers.
        positions: (n_atoms_total, 3), angstrom.
        ptr: (n_molecules + 1,), molecule i has the atoms ptr[i] to ptr[i + 1] - 1; none is empty.

    Returns:
        (n_molecules,), bohr^2.
    """
    starts, sizes = np.asarray(ptr[:-1]), np.diff(ptr)
    if len(sizes) == 0:
        return np.zeros(0)
    charges = np.asarray(numbers, dtype=np.float64)
    totals = np.add.reduceat(charges, starts)
    extents = np.zeros(len(sizes))
    for axis in np.asarray(positions, dtype=np.float64).T:
        centre = np.add.reduceat(charges * axis, starts) / totals
        extents += np.add.reduceat(charges * (axis - np.repeat(centre, sizes)) ** 2, starts)
    return extents / BOHR_ANGSTROM**2
