"""What should make a user doubt an answer: molecules and geometries unlike QM9's.

Source of the limits: R. Ramakrishnan et al., Sci. Data 1, 140022 (2014): up to nine heavy atoms;
the largest of its molecules has 29 atoms, the smallest (water, HCN) three.
"""

import numpy as np

from qm9flow.molecules.molecule import Geometry, Molecule

QM9_MAX_ATOMS = 29
QM9_MIN_ATOMS = 3
QM9_MAX_HEAVY = 9

_GEOMETRY = {
    "smiles": "the geometry was made from a SMILES by a force field",
    "approximate": "the geometry is approximate",
}


def doubts(molecule: Molecule, cutoff_angstrom: float | None = None) -> tuple[str, ...]:
    """Reasons why a molecule is unlike those that the network learned from.

    Args:
        molecule: A valid molecule.
        cutoff_angstrom: Atoms further apart do not see each other in the network; None if
            unknown.

    Returns:
        Sentences for people; none for a molecule like those of QM9.
    """
    found = _size_doubts(molecule)
    if cutoff_angstrom is not None and len(molecule) > 1:
        found += _isolation_doubts(molecule, cutoff_angstrom)
    return tuple(found)


def geometry_doubt(geometry: Geometry) -> tuple[str, ...]:
    """What another source of the geometry does to a prediction.

    Args:
        geometry: Where the positions come from.

    Returns:
        A sentence for people; none for a geometry like QM9's own.
    """
    if geometry not in _GEOMETRY:
        return ()
    return (
        f"{_GEOMETRY[geometry]}, not by B3LYP/6-31G(2df,p) as the molecules that "
        "the network learned from: expect larger errors",
    )


def _size_doubts(molecule: Molecule) -> list[str]:
    found = []
    heavy = int((molecule.numbers > 1).sum())
    if heavy > QM9_MAX_HEAVY:
        found.append(f"{heavy} heavy atoms; the largest molecules of QM9 have {QM9_MAX_HEAVY}")
    if len(molecule) > QM9_MAX_ATOMS:
        found.append(f"{len(molecule)} atoms; the largest molecules of QM9 have {QM9_MAX_ATOMS}")
    if len(molecule) < QM9_MIN_ATOMS:
        found.append(f"atoms: {len(molecule)}; the smallest molecules of QM9 have {QM9_MIN_ATOMS}")
    return found


def _isolation_doubts(molecule: Molecule, cutoff_angstrom: float) -> list[str]:
    positions = molecule.positions
    distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    atom = int(nearest.argmax())
    if nearest[atom] < cutoff_angstrom:
        return []
    return [
        f"the nearest neighbour of atom {atom + 1} is {nearest[atom]:.1f} angstrom away: the "
        f"network sees no further than {cutoff_angstrom:g} angstrom"
    ]
