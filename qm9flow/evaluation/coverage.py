"""Whether intervals hold what they promise, on molecules whose values are known.

How many of m test molecules lie inside intervals that n others calibrated is beta-binomial, however
the errors are distributed. Source: A. N. Angelopoulos, S. Bates, arXiv:2107.07511, appendix C.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from qm9flow.properties import TARGETS

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.99
"""With which all shares together lie in their band."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Intervals of some molecules, as they are served.

    Attributes:
        level: Share of true values that they are to hold.
        calibration_molecules: That they were calibrated on.
        half_widths: (n, 19), in the order of `properties.TARGETS` and in their units; NaN where
            there is none.
    """

    level: float
    calibration_molecules: int
    half_widths: Floats


@dataclass(frozen=True)
class Coverage:
    """How intervals hold.

    Attributes:
        level: Share of true values that they are to hold.
        calibration_molecules: That they were calibrated on.
        inside: By target, share of true values that they hold.
        width: By target, mean of their widths, in its unit.
        band: Least and largest share to be expected, of all targets together with the probability
            `CONFIDENCE`.
    """

    level: float
    calibration_molecules: int
    inside: dict[str, float]
    width: dict[str, float]
    band: tuple[float, float]


def coverage(intervals: Intervals, errors: Floats) -> Coverage | None:
    """Compare intervals with errors.

    Args:
        intervals: Of n molecules.
        errors: (n, 19), predicted - true, in the order and units of `properties.TARGETS`.

    Returns:
        How they hold; None if there are none.
    """
    halves = intervals.half_widths
    held = [column for column in range(len(TARGETS)) if np.isfinite(halves[:, column]).any()]
    if not held:
        return None
    inside = shares_inside(halves, errors)
    return Coverage(
        intervals.level,
        intervals.calibration_molecules,
        {TARGETS[column]: float(inside[column]) for column in held},
        {TARGETS[column]: float(2 * np.nanmean(halves[:, column])) for column in held},
        joint_band(intervals.level, intervals.calibration_molecules, len(errors), len(held)),
    )


def shares_inside(half_widths: Floats, errors: Floats) -> Floats:
    """Shares of errors that intervals hold.

    Args:
        half_widths: (n, T), NaN where there is no interval.
        errors: (n, T).

    Returns:
        (T,), over those that have an interval; NaN where none has one.
    """
    known = np.isfinite(half_widths)
    inside = (np.abs(errors) <= np.where(known, half_widths, -1.0)).sum(axis=0)
    counts = known.sum(axis=0)
    return np.asarray(np.where(counts > 0, inside / np.maximum(counts, 1), np.nan))


def joint_band(
    level: float, calibration: int, test: int, targets: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Between which shares all targets are to lie, for sets of finite size.

    Args:
        level: Of the intervals.
        calibration: Molecules that they were calibrated on.
        test: Molecules that they are tested on.
        targets: How many are looked at; each gets its part of the doubt (Bonferroni).
        confidence: With which all of them lie inside.

    Returns:
        The least and the largest share.
    """
    rank = min(math.ceil((calibration + 1) * level), calibration)
    law = betabinom(test, rank, calibration + 1 - rank)
    doubt = (1 - confidence) / targets / 2
    return float(law.ppf(doubt)) / test, float(law.ppf(1 - doubt)) / test
