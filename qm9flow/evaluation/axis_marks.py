"""Where the values of a searched parameter stand along its axis; the numbers written there."""

from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from qm9flow.evaluation.drawing import plain
from qm9flow.tuning.parameters import Axis

_LINE_SPREAD = 0.28
"""Share of a step over which lines through one of few values are spread."""

_LINE_ROOM = 0.1
"""Of the whole axis, at most, as they must not leave the picture."""

_NEAR = 0.04
"""Share of an axis below which a number is too near to its end's."""


def position(axis: Axis, value: Any) -> float:
    """Where a value lies.

    Args:
        axis: The parameter.
        value: One of its values.

    Returns:
        0 at the lower end of the axis, 1 at the upper one.
    """
    low, high = axis.low, axis.high
    if axis.kind == "choice":
        found = axis.options.index(str(value)) if str(value) in axis.options else 0
        return found / high if high else 0.5
    if axis.kind == "log":
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low)) if high > low else 0.5


def marks(axis: Axis) -> list[tuple[float, str]]:
    """The numbers along an axis.

    Args:
        axis: The parameter.

    Returns:
        Positions, 0 to 1, and texts; both ends are among them.
    """
    if axis.kind == "choice":
        return [(position(axis, option), option) for option in axis.options]
    if axis.kind == "log":
        inner = log_locator(axis).tick_values(axis.low, axis.high)
    else:
        inner = MaxNLocator(nbins=5, integer=axis.is_integer).tick_values(axis.low, axis.high)
    ends = [(0.0, plain(axis.low)), (1.0, plain(axis.high))]
    between = [
        (position(axis, value), plain(value))
        for value in inner
        if value > 0 or axis.kind == "linear"
    ]
    return ends + [mark for mark in between if _NEAR < mark[0] < 1 - _NEAR]


def log_locator(axis: Axis) -> LogLocator:
    """Powers of two where they are whole and few enough to be written.

    Args:
        axis: A parameter on a logarithmic scale.

    Returns:
        Where numbers stand.
    """
    if axis.high / axis.low > 300:
        return LogLocator()
    return LogLocator(base=2) if axis.is_integer else LogLocator(subs=(1.0, 2.0, 5.0))


def has_columns(axis: Axis) -> bool:
    """Whether an axis holds so few values that each has a column of its own.

    Args:
        axis: The parameter.

    Returns:
        True for choices and a dozen whole numbers at most.
    """
    return axis.kind == "choice" or (
        axis.kind == "linear" and axis.is_integer and axis.high - axis.low <= 12
    )


def line_place(axis: Axis, number: int, value: Any) -> float:
    """Where a trial's line crosses an axis; lines through few values are spread a little.

    Args:
        axis: The parameter.
        number: Of the trial.
        value: Its value.

    Returns:
        0 at the lower end of the axis, 1 at the upper one, and not far beyond.
    """
    place = position(axis, value)
    if not has_columns(axis) or axis.high == axis.low:
        return place
    return place + min(_LINE_SPREAD / (axis.high - axis.low), _LINE_ROOM) * _shift(number)


def _shift(number: int) -> float:
    """From -0.5 to 0.5, even over any row of numbers, the same each time."""
    return (0.618034 * number) % 1.0 - 0.5


def slice_place(axis: Axis, number: int, value: Any, spread: float) -> float:
    """Where a trial stands over a parameter.

    Args:
        axis: The parameter.
        number: Of the trial.
        value: Its value.
        spread: Width over which a crowd in a column is spread, so that points do not hide others.

    Returns:
        The value, or its column.
    """
    if axis.kind == "choice":
        value = axis.options.index(str(value)) if str(value) in axis.options else 0
    if has_columns(axis):
        return float(value) + spread * _shift(number)
    return float(value)
