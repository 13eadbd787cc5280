"""What all pictures share: an empty figure, colours, scales, numbers on axes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

SCORE = "validation score (mean over targets of MAE / std)"
SPEED = "training speed, molecules/s"
TRAIN = "training loss"

BLUE, AMBER, PINK, BLACK, RED = "#0072b2", "#e69f00", "#cc79a7", "#333333", "#d55e00"
"""After Okabe and Ito: told apart with any kind of colour vision, and by lightness in print."""

GREY = "#8a94a3"
"""Of what stands behind."""

INK = "#1c2733"
"""Of texts and lines that must be seen."""

SEQUENTIAL = "viridis"
"""Of magnitudes."""

BEST_TO_WORST = ("#08306b", "#2171b5", "#8fbfe0", "#c3ccd6")
"""From the best trial to the rest, which must not hide it."""

BEST_PLACES = (0.0, 0.1, 0.35, 1.0)
"""Where those colours stand, as shares of all trials: the best tenth is dark."""

EARLY_TO_LATE = ("#c6dbef", "#6baed6", "#2171b5", "#08306b")
"""Of trials in their order."""

_FINE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure.

    Args:
        width: Inches.
        height: Inches.
        title: Over everything.

    Returns:
        The figure, with a canvas that needs no display.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, color=INK)
    return figure


def tidy(axes: Axes) -> None:
    """No frame where nothing is read off, and a grid behind the marks.

    Args:
        axes: Of a plot.
    """
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(color="0.6", labelsize=9)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def plain(value: float, _position: int = 0) -> str:
    """A number in as few digits as tell it apart on an axis.

    Args:
        value: The number.
        _position: As matplotlib's formatters are called.

    Returns:
        The text.
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}".replace("e-0", "e-")


def is_wide(values: Sequence[float]) -> bool:
    """Whether values differ so much that a logarithmic scale shows them better.

    Args:
        values: At least one.

    Returns:
        Whether all are positive and the largest is more than four times the smallest.
    """
    return min(values) > 0 and max(values) > 4 * min(values)


def scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic scale where values differ much, always with readable numbers.

    Args:
        axes: Of a plot.
        which: `x` or `y`.
        values: What is drawn.
    """
    if is_wide(values):
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    write_numbers(axes.yaxis if which == "y" else axes.xaxis, values)


def write_numbers(axis: MatplotlibAxis, values: Sequence[float]) -> None:
    """Numbers as people write them along an axis whose scale follows `is_wide`.

    Args:
        axis: The axis.
        values: What is drawn.
    """
    if is_wide(values):
        decades = np.log10(max(values) / min(values))
        steps = (1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 1 else _FINE_STEPS
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(plain))


def colour_scale(values: Sequence[float]) -> Normalize:
    """How values become colours.

    Args:
        values: At least one.

    Returns:
        A logarithmic scale if they differ much, else a linear one.
    """
    low, high = min(values), max(values)
    if is_wide(values):
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1e-9)
