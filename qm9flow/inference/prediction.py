"""What is said of one molecule."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.errors import MoleculeError
from qm9flow.molecules.molecule import Geometry

Interval = tuple[float, float]


@dataclass(frozen=True)
class Domain:
    """How much a molecule is like those that the network learned from.

    Attributes:
        reasons: Why it is outside; none for a molecule inside. Sentences for people.
        score: Share of molecules like QM9's that lie at least as far from the training molecules
            as this one, 0 to 1: 0.5 is ordinary, below 0.01 strange. None where the model has no
            measure of it.
    """

    reasons: tuple[str, ...] = ()
    score: float | None = None

    @property
    def is_inside(self) -> bool | None:
        """Whether nothing speaks against it; None where only its size was looked at."""
        if self.reasons:
            return False
        return True if self.score is not None else None


@dataclass(frozen=True, eq=False)
class Shape:
    """One geometry of a molecule.

    Attributes:
        numbers: (n_atoms,), atomic numbers.
        positions: (n_atoms, 3), angstrom.
        is_refined: Whether the model has moved the atoms to where DFT should have them; else they
            are where they were given, or where a force field had them.
    """

    numbers: npt.NDArray[np.int64]
    positions: npt.NDArray[np.float64]
    is_refined: bool


@dataclass(frozen=True)
class Prediction:
    """What the network says of one molecule.

    Attributes:
        values: By target, in the unit of `properties`. None where the property does not exist
            (rotational constants of atoms, A of linear molecules), or where the network gives
            nothing finite, or by its interval less than zero of what cannot be negative.
        warnings: Reasons to trust the values less, those of the domain among them; sentences for
            people.
        intervals: By target, in its unit, lower and upper end: at the model's level the true value
            lies between them. None where there is no value, or where the model has none to give.
        domain: How much it is like the molecules that the network learned from.
        geometry: Where the positions come from.
        conformers: How many geometries the values are an average over.
        likeliest: The one of them that weighs most, which rotational constants are of. None in a
            prediction that a predictor has not made.
    """

    values: dict[str, float | None]
    warnings: tuple[str, ...]
    intervals: dict[str, Interval | None] = field(default_factory=dict)
    domain: Domain = Domain()
    geometry: Geometry = "dft"
    conformers: int = 1
    likeliest: Shape | None = field(default=None, compare=False, repr=False)


def entry(result: Prediction | MoleculeError) -> dict[str, Any]:
    """A result as the HTTP interface and `--json` give it.

    Args:
        result: A prediction, or why there is none.

    Returns:
        Plain values.
    """
    if isinstance(result, MoleculeError):
        return {"ok": False, "error": {"code": result.code, "message": str(result)}}
    return {
        "ok": True,
        "values": result.values,
        "intervals": {name: ends and list(ends) for name, ends in result.intervals.items()},
        "domain": {
            "inside": result.domain.is_inside,
            "score": result.domain.score,
            "reasons": list(result.domain.reasons),
        },
        "geometry": {"source": result.geometry, "conformers": result.conformers},
        "warnings": list(result.warnings),
    }
