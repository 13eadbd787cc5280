"""Molecules that every model must be able to answer for: small, of known geometry.

All five elements occur; the smallest has three atoms, as in QM9. Bond lengths are experimental.
"""

import dataclasses

import numpy as np

from qm9flow.molecules.molecule import Conformers, Geometry, Molecule, Structure

_CORNERS = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]) / np.sqrt(3)
_CENTRE = np.zeros((1, 3))


def _tetrahedron(corner: int, bond_angstrom: float, name: str) -> Molecule:
    positions = np.concatenate([_CENTRE, bond_angstrom * _CORNERS])
    return Molecule(np.array([6, *[corner] * 4]), positions, name=name)


PROBES = (
    Molecule(
        np.array([8, 1, 1]),
        np.array([[0.0, 0.0, 0.1173], [0.0, 0.7572, -0.4692], [0.0, -0.7572, -0.4692]]),
        name="water",
    ),
    Molecule(
        np.array([1, 6, 7]),
        np.array([[0.0, 0.0, -1.0655], [0.0, 0.0, 0.0], [0.0, 0.0, 1.1532]]),
        name="hydrogen cyanide",
    ),
    _tetrahedron(1, 1.087, "methane"),
    _tetrahedron(9, 1.323, "tetrafluoromethane"),
)


def as_from(molecule: Molecule, source: Geometry) -> Structure:
    """A molecule as a source has it.

    Args:
        molecule: Its geometry.
        source: Where its positions are to come from.

    Returns:
        The same; of a SMILES, two equal conformers.
    """
    if source != "smiles":
        return dataclasses.replace(molecule, geometry=source)
    both = np.stack([molecule.positions] * 2)
    return Conformers(molecule.numbers, both, np.zeros(2), molecule.name)
