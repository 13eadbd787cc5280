"""Which geometries of molecules count, and how much."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.inference.judged import softmax
from qm9flow.molecules.molecule import Conformers, Molecule, Structure

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weighed:
    """Geometries, one molecule after another.

    Attributes:
        geometries: Those that count.
        weights: (g,), they add up to 1 for each molecule.
        starts: (n,), where each molecule's begin.
        likeliest: (n,), the one of each molecule that weighs most.
    """

    geometries: list[Molecule]
    weights: Floats
    starts: npt.NDArray[np.int64]
    likeliest: npt.NDArray[np.int64]


def weighed(molecules: Sequence[Structure], logits: Floats | None, least_weight: float) -> Weighed:
    """Weigh conformers, and leave out those that do not count.

    Args:
        molecules: At least one.
        logits: (G,), of the conformers of those that have some; None weighs them by Boltzmann's
            factors, and so are those weighed that have one which is not finite.
        least_weight: Conformers of less are left out.

    Returns:
        What is left; a molecule with one geometry has that one.
    """
    geometries: list[Molecule] = []
    weights, counts, likeliest = [], [], []
    first = 0
    for molecule in molecules:
        if isinstance(molecule, Molecule):
            shapes: Sequence[Molecule] = (molecule,)
            own = np.ones(1)
        else:
            shapes = molecule.molecules
            own = _own(molecule, logits, first)
            first += len(own)
        kept = np.flatnonzero(own >= min(least_weight, own.max()))
        likeliest.append(len(geometries) + int(own[kept].argmax()))
        geometries += [shapes[i] for i in kept.tolist()]
        weights.append(own[kept] / own[kept].sum())
        counts.append(len(kept))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    return Weighed(geometries, np.concatenate(weights), starts, np.array(likeliest))


def _own(molecule: Conformers, logits: Floats | None, first: int) -> Floats:
    if logits is not None:
        mine = logits[first : first + len(molecule.energies)]
        if np.isfinite(mine).all():
            return softmax(mine)
    return molecule.weights()
