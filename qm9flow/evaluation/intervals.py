"""Intervals from what a network says of known molecules, and how well they hold on others."""

import dataclasses

import numpy as np
import numpy.typing as npt

from qm9flow.inference.calibration import (
    LEVEL,
    SHARES,
    SourceCalibration,
    conformal_factor,
)
from qm9flow.inference.domain import far_factor
from qm9flow.inference.judged import Judged
from qm9flow.properties import TARGETS

Floats = npt.NDArray[np.float64]

SMALLEST = 1e-12
"""Spreads below this are none: values of exactly 0, such as A of linear molecules, have no
relative error."""


def calibrate(judged: Judged, truth: Floats, level: float = LEVEL) -> SourceCalibration:
    """What makes intervals hold.

    Args:
        judged: What the network says of molecules that played no part in training, stopping or
            choice.
        truth: (n, 19), in the order and units of `properties.TARGETS`.
        level: Share of true values that are to lie inside.

    Returns:
        The calibration, not yet tested.
    """
    factors = {}
    for column, name in enumerate(TARGETS):
        spread = judged.spread(name)
        if spread is None:
            continue
        known = spread > SMALLEST
        errors = np.abs(judged.values[name] - truth[:, column])
        if known.any():
            factors[name] = conformal_factor(errors[known] / spread[known], level)
    distances = np.zeros(1) if judged.distances is None else judged.distances
    return SourceCalibration(
        molecules=len(truth),
        factors=factors,
        distances=tuple(np.quantile(distances, SHARES).tolist()),
    )


def half_widths(judged: Judged, calibrated: SourceCalibration) -> dict[str, Floats]:
    """Half the width of each interval, as it is served.

    Args:
        judged: What the network says.
        calibrated: What was measured.

    Returns:
        (n,) by target, in its unit.
    """
    far = np.ones(1)
    if judged.distances is not None:
        far = far_factor(judged.distances, calibrated)
    found = {}
    for name, factor in calibrated.factors.items():
        spread = judged.spread(name)
        if spread is not None:
            found[name] = factor * spread * far
    return found


def tested(calibrated: SourceCalibration, judged: Judged, truth: Floats) -> SourceCalibration:
    """How intervals hold on molecules that nothing was measured on.

    Args:
        calibrated: What was measured.
        judged: What the network says of test molecules.
        truth: (n, 19), in the order and units of `properties.TARGETS`.

    Returns:
        The same with coverage and width.
    """
    halves = half_widths(judged, calibrated)
    errors = {name: np.abs(judged.values[name] - truth[:, TARGETS.index(name)]) for name in halves}
    return dataclasses.replace(
        calibrated,
        test_molecules=len(truth),
        coverage={name: float((errors[name] <= half).mean()) for name, half in halves.items()},
        width={name: float(2 * half.mean()) for name, half in halves.items()},
    )
