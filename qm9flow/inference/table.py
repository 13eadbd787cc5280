"""From columns to what is said of each molecule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow.config.choices import GeometrySource
from qm9flow.inference.calibration import SourceCalibration
from qm9flow.inference.judged import Judged
from qm9flow.inference.prediction import Domain, Interval, Prediction, Shape
from qm9flow.properties import GEOMETRIC

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

POSITIVE = frozenset({"mu", "alpha", "gap", "r2", "zpve", "cv", *GEOMETRIC})
"""Targets that cannot be negative: nor can the ends of their intervals. A value below zero is
taken for zero where that lies in its interval, and for none where it does not; without an interval
nothing is known of it but that it cannot be."""


@dataclass(frozen=True, eq=False)
class Table:
    """Values and intervals of molecules, row by row, as plain numbers.

    Attributes:
        names: Of the columns.
        values: Of each molecule; None where the property does not exist, or where the network gives
            nothing finite or what cannot be.
        intervals: Likewise; None where there is no value, or no interval.
        warnings: By molecule, what the network gives that is no value, for those that have some.
    """

    names: tuple[str, ...]
    values: list[list[float | None]]
    intervals: list[list[Interval | None]]
    warnings: dict[int, tuple[str, ...]]

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
            widened: (n, W), what intervals are wider by.

        Returns:
            The table.
        """
        columns = np.column_stack([judged.values[name] for name in names])  # (n, W)
        with np.errstate(invalid="ignore"):  # nothing, infinitely widened, is no interval
            halves = _half_widths(judged, names, calibrated) * widened
        halves[~np.isfinite(halves)] = np.nan
        lower, upper = columns - halves, columns + halves
        is_positive = np.isin(names, list(POSITIVE))
        is_zero = is_positive & (columns < 0) & (upper >= 0)
        below_zero = is_positive & (columns < 0) & ~is_zero
        columns = np.where(is_zero, 0.0, columns)
        lower = np.where(is_positive, np.maximum(lower, 0.0), lower)
        infinite = ~np.isfinite(columns)
        is_absent = np.isin(names, GEOMETRIC) & (columns == 0.0)
        none = infinite | is_absent | (below_zero & (upper < 0))
        return cls(
            tuple(names),
            _without(none, columns.tolist()),
            _without(none | np.isnan(halves), _pairs(lower, upper)),
            _warnings(names, infinite, below_zero),
        )

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
        return Prediction(
            dict(zip(self.names, self.values[row], strict=True)),
            (*doubts, *domain.reasons, *self.warnings.get(row, ())),
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


def _warnings(names: Sequence[str], infinite: Flags, negative: Flags) -> dict[int, tuple[str, ...]]:
    """By row, what the network gives that is no value."""
    found: dict[int, tuple[str, ...]] = {}
    for said, flags in (
        ("the network gives no finite value for", infinite),
        ("the network gives less than zero, which cannot be, for", negative),
    ):
        for row in np.flatnonzero(flags.any(axis=1)).tolist():
            some = ", ".join(names[k] for k in np.flatnonzero(flags[row]).tolist())
            found[row] = (*found.get(row, ()), f"{said} {some}")
    return found


def _pairs(lower: Floats, upper: Floats) -> list[list[Any]]:
    return [
        list(zip(low, high, strict=True))
        for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
    ]


def _without(none: Flags, rows: list[list[Any]]) -> list[list[Any]]:
    for row, k in zip(*np.nonzero(none), strict=True):
        rows[row][k] = None
    return rows
