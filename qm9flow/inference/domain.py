"""What should make a user doubt an answer: molecules and geometries unlike QM9's.

Source of the limits: R. Ramakrishnan et al., Sci. Data 1, 140022 (2014): up to nine heavy atoms;
the largest of its molecules has 29 atoms, the smallest (water, HCN) three.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qm9flow.inference.calibration import STRANGE, SourceCalibration
from qm9flow.inference.prediction import Domain
from qm9flow.molecules.molecule import Conformers, Geometry, Molecule, Structure
from qm9flow.properties import GEOMETRIC

Floats = npt.NDArray[np.float64]

QM9_MAX_ATOMS = 29
QM9_MIN_ATOMS = 3
QM9_MAX_HEAVY = 9

APART_ANGSTROM = 2.0
"""The longest bond of QM9 has 1.7."""

_GEOMETRY = {
    "smiles": "the geometry was made from a SMILES by a force field",
    "approximate": "the geometry is approximate",
}
_OUTSIDE = 1.5
"""Intervals outside the domain are wider by this factor, at least."""

_OPEN, _OPEN_CONSTANTS = 1.5, 3.0
"""Where a SMILES leaves isomers open intervals are wider by the first factor, those of rotational
constants by the second: they then hold 89% to 96% of the values of validation molecules, instead of
82% to 90%, and of rotational constants 91% to 93% instead of 67%."""


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
    if int(molecule.numbers.sum()) % 2:
        found.append("an odd number of electrons: a radical or an ion, or a hydrogen is missing")
    if cutoff_angstrom is not None and len(molecule) > 1:
        found += _isolation_doubts(molecule, cutoff_angstrom)
    return tuple(found)


def geometry_doubt(geometry: Geometry, *, has_network: bool, is_refined: bool) -> tuple[str, ...]:
    """What another source of the geometry does to a prediction.

    Args:
        geometry: Where the positions come from.
        has_network: Whether the model has a network that learned from such geometries.
        is_refined: Whether that network has refined this one.

    Returns:
        A sentence for people; none for a geometry like QM9's own.
    """
    if geometry not in _GEOMETRY:
        return ()
    said = f"{_GEOMETRY[geometry]}, not by B3LYP/6-31G(2df,p)"
    if is_refined:
        return (
            f"{said}, then refined by a network: errors are larger than from that geometry, most "
            "of all those of the rotational constants a, b and c",
        )
    why = " as the molecules that the network learned from"
    if has_network:
        why = ", and unlike all that a network has learned to refine"
    return (
        f"{said}{why}: expect larger errors, most of all those of the rotational constants a, b "
        "and c",
    )


def isomer_doubt(molecule: Structure) -> tuple[str, ...]:
    """What a SMILES that leaves handedness open does to a prediction.

    Args:
        molecule: A valid one.

    Returns:
        A sentence for people; none where one stereoisomer is meant.
    """
    if not isinstance(molecule, Conformers) or molecule.isomers < 2:
        return ()
    return (
        f"the SMILES leaves open which of {molecule.isomers} stereoisomers or more is meant: the "
        "values may be those of one or an average over those found, with wider intervals; for one "
        "of them state its centres (@) and double bonds (/)",
    )


def isomer_factors(molecules: Sequence[Structure], targets: Sequence[str]) -> Floats:
    """How much wider intervals are because nobody knows which stereoisomer is meant.

    Args:
        molecules: n valid ones.
        targets: W names.

    Returns:
        (n, W): 1 where one is meant.
    """
    is_open = np.array([isinstance(item, Conformers) and item.isomers > 1 for item in molecules])
    factors = np.where(np.isin(targets, GEOMETRIC), _OPEN_CONSTANTS, _OPEN)
    return np.where(is_open[:, None], factors, 1.0)


def domain_of(
    reasons: tuple[str, ...],
    distance: float | None,
    calibrated: SourceCalibration | None,
) -> Domain:
    """How much a molecule is like those that a network learned from.

    Args:
        reasons: What `doubts` says of the molecule.
        distance: From the training molecules, as the network sees them; infinite where it cannot
            tell, None if unknown.
        calibrated: What distances mean; None if unknown.

    Returns:
        Score and reasons.
    """
    if calibrated is None or distance is None:
        return Domain(reasons)
    score = calibrated.score(distance)
    if score < STRANGE:
        far = "beyond all measure"
        if math.isfinite(distance):
            times = _ratio(distance / calibrated.usual)
            far = f"{times} times as far away as for 99 in 100 of QM9's"
        reasons += (
            f"unlike the training molecules: to the network, the nearest of them lies {far}",
        )
    return Domain(reasons, score)


def _ratio(number: float) -> str:
    """Never `1 times as far`: what is said of is farther away."""
    return f"{number:,.0f}" if number >= 10 else f"{max(number, 1.01):.3g}"


def widening(
    molecule: Molecule,
    domain: Domain,
    distance: float | None,
    calibrated: SourceCalibration | None,
) -> float:
    """How much wider intervals are outside the domain.

    Args:
        molecule: A valid molecule.
        domain: What `domain_of` said of it.
        distance: As there.
        calibrated: As there.

    Returns:
        1 inside, more outside: in proportion to the distance, or to the square of the number of
        heavy atoms beyond those of QM9.
    """
    if not domain.reasons:
        return 1.0
    heavy = int((molecule.numbers > 1).sum())
    factor = max(_OUTSIDE, float(size_factor(np.array([heavy]))[0]))
    if distance is None or calibrated is None:
        return factor
    return max(factor, float(far_factor(np.array([distance]), calibrated)[0]))


def size_factor(heavy: npt.NDArray[np.int64], largest: int = QM9_MAX_HEAVY) -> Floats:
    """How much wider intervals are for the size alone.

    Args:
        heavy: (n,), numbers of heavy atoms.
        largest: Of the molecules that the network learned from.

    Returns:
        (n,): 1 up to the largest, beyond at least `_OUTSIDE`, and in proportion to the square.
    """
    ratio = heavy / largest
    return np.where(ratio > 1, np.maximum(_OUTSIDE, ratio**2), 1.0)


def far_factor(distances: Floats, calibrated: SourceCalibration) -> Floats:
    """How much wider intervals are for the distance alone.

    Args:
        distances: (n,), from the training molecules.
        calibrated: What distances mean.

    Returns:
        (n,): 1 inside, outside at least `_OUTSIDE`, and in proportion to the distance.
    """
    if calibrated.usual <= 0:
        return np.ones(len(distances))
    ratio = distances / calibrated.usual
    return np.where(ratio > 1, np.maximum(_OUTSIDE, ratio), 1.0)


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


def _parts(distances: Floats) -> int:
    """Into how many parts a molecule falls that lie more than `APART_ANGSTROM` apart."""
    left, parts = np.ones(len(distances), dtype=bool), 0
    while left.any():
        reached = np.zeros(len(distances), dtype=bool)
        reached[left.argmax()] = True
        while True:
            wider = (distances[reached] < APART_ANGSTROM).any(axis=0) | reached
            if (wider == reached).all():
                break
            reached = wider
        left &= ~reached
        parts += 1
    return parts


def _isolation_doubts(molecule: Molecule, cutoff_angstrom: float) -> list[str]:
    positions = molecule.positions
    distances = np.linalg.norm(positions[:, None] - positions[None, :], axis=-1)
    parts, found = _parts(distances), []
    if parts > 1:
        found.append(
            f"{parts} parts, more than {APART_ANGSTROM:g} angstrom apart: several molecules, or "
            "positions that are not in angstrom"
        )
    return found + _unseen(distances, cutoff_angstrom)


def _unseen(distances: Floats, cutoff_angstrom: float) -> list[str]:
    distances = distances.copy()
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1)
    atom = int(nearest.argmax())
    if nearest[atom] < cutoff_angstrom:
        return []
    return [
        f"the nearest neighbour of atom {atom + 1} is {nearest[atom]:.1f} angstrom away: the "
        f"network sees no further than {cutoff_angstrom:g} angstrom"
    ]
