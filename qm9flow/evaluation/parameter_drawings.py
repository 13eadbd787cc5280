"""Trials over the parameters that were searched, in pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from qm9flow.evaluation import drawing
from qm9flow.evaluation.axis_marks import (
    has_columns,
    line_place,
    log_locator,
    marks,
    position,
    slice_place,
)
from qm9flow.evaluation.drawing import new_figure, plain
from qm9flow.evaluation.fates import scored, scores
from qm9flow.tuning.parameters import Axis, families
from qm9flow.tuning.records import TrialRecord

_CROWD = 40
"""Trials from which on points at the same few values hide each other."""

_MANY = 300
"""Trials from which on points are small and lines thin."""

_BEST_FIRST = LinearSegmentedColormap.from_list(
    "best first", list(zip(drawing.BEST_PLACES, drawing.BEST_TO_WORST, strict=True))
)

_IN_ORDER = LinearSegmentedColormap.from_list("in order", drawing.EARLY_TO_LATE)


def draw_parallel(trials: Sequence[TrialRecord], axes: Sequence[Axis], title: str) -> Figure | str:
    """Each completed trial as a line through its parameters to its score.

    Args:
        trials: All trials.
        axes: The parameters.
        title: Of the figure.

    Returns:
        The figure, or why there is none; a panel for each family of trials, with one score scale.
    """
    complete = sorted(scored(trials, "complete"), key=lambda trial: trial.score or 0.0)
    if len(complete) < 2 or not axes:
        return "fewer than two trials have completed"
    ranks = {trial.number: rank / (len(complete) - 1) for rank, trial in enumerate(complete)}
    score_axis = axis_of_scores(scores(complete))
    kinds = families([trial.params for trial in complete], axes)
    width = max(len(kind.axes) for kind in kinds) + 1
    figure = new_figure(max(7.0, 1.75 * width), 1.2 + 3.8 * len(kinds), title)
    panels = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
    for plot, kind in zip(panels, kinds, strict=True):
        members = [complete[place] for place in reversed(kind.members)]  # the best on top
        first = width - len(kind.axes) - 1  # what families share stands below each other
        _draw_lines(plot, members, [*kind.axes, score_axis], first, ranks)
        plot.set_xlim(-0.2, width - 0.55)
        plot.set_title(kind.label and f"{kind.label}: {len(members)} of them", fontsize=10)
    note = f"{len(complete):,} completed trials; the best tenth is dark, the best one thick"
    panels[-1].set_xlabel(note)
    return figure


def axis_of_scores(values: Sequence[float]) -> Axis:
    """The axis that all lines end at.

    Args:
        values: Scores of all completed trials.

    Returns:
        The axis, logarithmic if they differ much.
    """
    kind: Literal["log", "linear"] = "log" if drawing.is_wide(values) else "linear"
    return Axis("score", kind, min(values), max(values))


def _draw_lines(
    plot: Axes,
    trials: Sequence[TrialRecord],
    columns: Sequence[Axis],
    first: int,
    ranks: Mapping[int, float],
) -> None:
    """Trials through the same columns, the score last; the first one stands at `first`."""
    places = range(first, first + len(columns))
    width = 1.1 if len(trials) < _MANY else 0.7
    for trial in trials:
        score = float(trial.score or 0.0)
        heights = [line_place(axis, trial.number, trial.params[axis.name]) for axis in columns[:-1]]
        rank = ranks[trial.number]
        plot.plot(
            places,
            [*heights, position(columns[-1], score)],
            color=_BEST_FIRST(rank),
            alpha=0.9 if rank < drawing.BEST_PLACES[1] else 0.6,
            linewidth=2.6 if trial is trials[-1] else width,
        )
    for place, axis in zip(places, columns, strict=True):
        plot.axvline(place, color="0.25", linewidth=0.8)
        for height, text in marks(axis):
            plot.annotate(
                text,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            )
    plot.set_xticks(places, [_named(axis) for axis in columns], fontsize=9)
    plot.set(yticks=[], ylim=(-0.06, 1.06))
    plot.spines[:].set_visible(False)


def _named(axis: Axis) -> str:
    return f"{axis.name}\n(log)" if axis.kind == "log" else axis.name


def draw_slices(trials: Sequence[TrialRecord], axes: Sequence[Axis], title: str) -> Figure | str:
    """The score over each parameter.

    Args:
        trials: All trials.
        axes: The parameters.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    complete = scored(trials, "complete")
    others = [trial for trial in scored(trials) if trial.state != "complete"]
    everyone = complete + others
    if not complete or not axes:
        return "no trial has completed"
    columns = min(3 if len(axes) < 10 else 4, len(axes))
    rows = -(-len(axes) // columns)
    figure = new_figure(4.0 * columns + 0.8, 3.1 * rows + 0.6, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    norm = Normalize(0, max(1, *(trial.number for trial in everyone)))
    spread = 0.3 if len(everyone) >= _CROWD else 0.0
    size = 26 if len(everyone) < _MANY else 9
    image = None
    for index, axis in enumerate(axes):
        plot = grid[index // columns][index % columns]
        for group, hollow in ((others, True), (complete, False)):
            held = [trial for trial in group if axis.name in trial.params]
            x = [slice_place(axis, trial.number, trial.params[axis.name], spread) for trial in held]
            points: dict[str, Any] = {"s": size, "zorder": 2 if hollow else 3}
            if hollow:
                plot.scatter(x, scores(held), c=drawing.GREY, alpha=0.35, linewidths=0, **points)
            else:
                numbers = [trial.number for trial in held]
                points |= {"c": numbers, "norm": norm, "cmap": _IN_ORDER, "edgecolors": drawing.INK}
                image = plot.scatter(x, scores(held), linewidths=0.3, **points)
        _slice_axis(plot, axis)
        if index % columns == 0:
            plot.set_ylabel("validation score")
    for unused in range(len(axes), rows * columns):
        grid[unused // columns][unused % columns].set_visible(False)
    drawing.scale(grid[0][0], "y", scores(everyone))
    if image is not None:
        bar = figure.colorbar(image, ax=grid, label="trial (grey: stopped early)", shrink=0.8)
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    return figure


def _slice_axis(plot: Axes, axis: Axis) -> None:
    """Name, numbers and ends: the whole range that is searched, wherever the points lie."""
    plot.set_xlabel(axis.name)
    drawing.tidy(plot)
    if axis.kind == "log":
        plot.set_xscale("log")
        plot.xaxis.set_major_locator(log_locator(axis))
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.xaxis.set_major_formatter(FuncFormatter(plain))
        margin = max(1.05, (axis.high / axis.low) ** 0.04)
        plot.set_xlim(axis.low / margin, axis.high * margin)
        return
    if axis.kind == "choice":
        plot.set_xticks(range(len(axis.options)), axis.options)
    elif axis.is_integer:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    width = 0.5 if has_columns(axis) else 0.04 * (axis.high - axis.low) or 0.5
    plot.set_xlim(axis.low - width, axis.high + width)
