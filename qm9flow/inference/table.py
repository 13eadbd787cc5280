"""From columns to what is said of each molecule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.inference.calibration import SourceCalibration
from qm9flow.inference.judged import Judged
from qm9flow.inference.prediction import Domain, Interval, Prediction, Shape
from qm9flow.properties import GEOMETRIC

Floats = npt.NDArray[np.float64]

POSITIVE = frozenset({"mu", "alpha", "gap", "r2", "zpve", "cv", *GEOMETRIC})
"""Targets that cannot be negative: nor can the ends of their intervals."""


@dataclass(frozen=True, eq=False)
class Table:
    """Values and intervals of molecules, row by row, as plain numbers.

    Attributes:
        names: Of the columns.
        values: Of each molecule; None where the property does not exist or has no finite value.
        intervals: Likewise; None where there is no value, or no interval.
        strange: By molecule, targets without a finite value, for those that have some.
    """

    names: tuple[str, ...]
    values: list[list[float | None]]
    intervals: list[list[Interval | None]]
    strange: dict[int, list[str]]

    @classmethod
    def of(
        cls,
        judged: Judged,
        names: Sequence[str],
        calibrated: SourceCalibration | None,
        widened: Floats,
    ) -> "Table":
        """Make it.

        Args:
            judged: What the network says of n molecules.
            names: Targets that are wanted.
            calibrated: What makes intervals; None if nothing does.
            widened: (n,), what intervals are wider by.

        Returns:
            The table.
        """
        columns = np.column_stack([judged.values[name] for name in names])  # (n, W)
        finite = np.isfinite(columns)
        none = ~finite
        for k, name in enumerate(names):
            if name in GEOMETRIC:
                none[:, k] |= columns[:, k] == 0.0
        with np.errstate(invalid="ignore"):  # nothing, infinitely widened, is no interval
            halves = _half_widths(judged, names, calibrated) * widened[:, None]
        lower, upper = columns - halves, columns + halves
        positive = [k for k, name in enumerate(names) if name in POSITIVE]
        for ends in (lower, upper):
            ends[:, positive] = np.maximum(ends[:, positive], 0.0)
        values: list[list[float | None]] = columns.tolist()
        intervals: list[list[Interval | None]] = [
            list(zip(low, high, strict=True))
            for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
        ]
        for row, k in zip(*np.nonzero(none | ~np.isfinite(halves)), strict=True):
            intervals[row][k] = None
        for row, k in zip(*np.nonzero(none), strict=True):
            values[row][k] = None
        strange: dict[int, list[str]] = {}
        for row, k in zip(*np.nonzero(~finite), strict=True):
            strange.setdefault(int(row), []).append(names[k])
        return cls(tuple(names), values, intervals, strange)

    def prediction(
        self,
        row: int,
        domain: Domain,
        doubts: tuple[str, ...],
        made_of: tuple[GeometrySource, int, Shape],
    ) -> Prediction:
        """One molecule.

        Args:
            row: Which.
            domain: How much it is like those that the network learned from.
            doubts: What its geometry makes people warned of.
            made_of: Source and number of its geometries, and the likeliest one.

        Returns:
            All that is said of it.
        """
        warnings = (*doubts, *domain.reasons)
        if row in self.strange:
            names = ", ".join(self.strange[row])
            warnings += (f"the network gives no finite value for {names}",)
        return Prediction(
            dict(zip(self.names, self.values[row], strict=True)),
            warnings,
            dict(zip(self.names, self.intervals[row], strict=True)),
            domain,
            *made_of,
        )


def _half_widths(
    judged: Judged, names: Sequence[str], calibrated: SourceCalibration | None
) -> Floats:
    """(n, W); NaN where there is no interval."""
    found = np.full((len(judged.outputs), len(names)), np.nan)
    if calibrated is None:
        return found
    for k, name in enumerate(names):
        spread = judged.spread(name)
        if name in calibrated.factors and spread is not None:
            found[:, k] = calibrated.factors[name] * spread
    return found
