"""A study in pictures, drawn with matplotlib and without a display: one function a picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import Axis as MatplotlibAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from qm9flow.tuning.plots import Axis, families
from qm9flow.tuning.records import TrialRecord

SCORE = "validation score (mean over targets of MAE / std)"
SPEED = "training speed, molecules/s"
TRAIN = "training loss"

_COLOURS = "viridis"
_STATE_COLOURS = {"complete": "#1b7837", "pruned": "#e08214", "failed": "#b2182b"}
_FINE_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)

_LABELLED = 8
"""Trials whose numbers are written beside their points, at most."""

_CROWD = 40
"""Trials from which on points at the same few values hide each other."""


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
    figure.suptitle(title, fontsize=12)
    return figure


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


def _scale(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic scale where values differ much, always with readable numbers."""
    if _is_wide(values):
        (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    _number(axes.yaxis if which == "y" else axes.xaxis, values)


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) > 4 * min(values)


def _number(axis: MatplotlibAxis, values: Sequence[float]) -> None:
    if _is_wide(values):
        decades = np.log10(max(values) / min(values))
        steps = (1.0,) if decades > 3 else (1.0, 2.0, 5.0) if decades > 1 else _FINE_STEPS
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(plain))


def _scored(trials: Sequence[TrialRecord], state: str) -> list[TrialRecord]:
    return [
        trial
        for trial in trials
        if trial.state == state and trial.score is not None and np.isfinite(trial.score)
    ]


def _scores(trials: Sequence[TrialRecord]) -> list[float]:
    return [float(trial.score or 0.0) for trial in trials]


def draw_history(trials: Sequence[TrialRecord], title: str) -> Figure | str:
    """Scores in the order of the trials, and the best so far.

    Args:
        trials: All trials.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    complete, pruned = _scored(trials, "complete"), _scored(trials, "pruned")
    if not complete and not pruned:
        return "no trial has a score"
    figure = new_figure(8, 4.5, title)
    axes = figure.subplots()
    axes.scatter(
        [trial.number for trial in pruned],
        _scores(pruned),
        s=26,
        facecolors="none",
        edgecolors=_STATE_COLOURS["pruned"],
        label=f"pruned ({len(pruned)}), lowest score before",
    )
    axes.scatter(
        [trial.number for trial in complete],
        _scores(complete),
        s=30,
        color=_STATE_COLOURS["complete"],
        label=f"complete ({len(complete)})",
    )
    if complete:
        numbers = np.array([trial.number for trial in complete])
        best = np.minimum.accumulate(_scores(complete))
        last = max(trial.number for trial in trials)
        axes.step(
            np.append(numbers, last),
            np.append(best, best[-1]),
            where="post",
            color="0.2",
            linewidth=1.2,
            label=f"best so far ({best[-1]:.4f})",
        )
    _scale(axes, "y", _scores(complete + pruned))
    failed = [trial.number for trial in trials if trial.state == "failed"]
    if failed:
        axes.plot(
            failed,
            np.full(len(failed), 0.02),
            "x",
            color=_STATE_COLOURS["failed"],
            transform=axes.get_xaxis_transform(),
            label=f"failed ({len(failed)}), no score",
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    margin = 0.5 + 0.01 * len(trials)
    axes.set_xlim(-margin, max(trial.number for trial in trials) + margin)
    axes.set_xlabel("trial")
    axes.set_ylabel(SCORE)
    axes.grid(alpha=0.25)
    figure.legend(fontsize=8, ncols=4, loc="outside lower center", frameon=False)
    return figure


def draw_importances(importances: Mapping[str, float], n_complete: int, title: str) -> Figure:
    """Share of each parameter in what makes the best trials good.

    Args:
        importances: By parameter; they add up to 1.
        n_complete: Completed trials that they come from.
        title: Of the figure.

    Returns:
        The figure.
    """
    names = sorted(importances, key=lambda name: importances[name])
    figure = new_figure(7, 1.4 + 0.42 * len(names), title)
    axes = figure.subplots()
    shares = [100 * importances[name] for name in names]
    bars = axes.barh(names, shares, color="#35608d", height=0.65)
    axes.bar_label(bars, labels=[f"{share:.0f}%" for share in shares], padding=4, fontsize=9)
    axes.set_xlim(0, max(shares) * 1.12)
    axes.set_xlabel(f"importance for being in the best tenth, % (PED-ANOVA, {n_complete} trials)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _position(axis: Axis, value: Any) -> float:
    """Where a value lies between the ends of its axis, 0 to 1."""
    low, high = axis.low, axis.high
    if axis.kind == "choice":
        found = axis.options.index(str(value)) if str(value) in axis.options else 0
        return found / high if high else 0.5
    if axis.kind == "log":
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low)) if high > low else 0.5


def _marks(axis: Axis) -> list[tuple[float, str]]:
    """Positions and texts of an axis' numbers."""
    if axis.kind == "choice":
        return [(_position(axis, option), option) for option in axis.options]
    if axis.kind == "log":
        inner = _log_locator(axis).tick_values(axis.low, axis.high)
    else:
        inner = MaxNLocator(nbins=5, integer=axis.is_integer).tick_values(axis.low, axis.high)
    near = 0.04
    ends = [(0.0, plain(axis.low)), (1.0, plain(axis.high))]
    between = [
        (_position(axis, value), plain(value))
        for value in inner
        if value > 0 or axis.kind == "linear"
    ]
    return ends + [mark for mark in between if near < mark[0] < 1 - near]


def _log_locator(axis: Axis) -> LogLocator:
    """Powers of two where they are whole and few enough to be written."""
    if axis.high / axis.low > 300:
        return LogLocator()
    return LogLocator(base=2) if axis.is_integer else LogLocator(subs=(1.0, 2.0, 5.0))


def _norm(values: Sequence[float]) -> Normalize:
    low, high = min(values), max(values)
    if _is_wide(values):
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1e-9)


def draw_parallel(trials: Sequence[TrialRecord], axes: Sequence[Axis], title: str) -> Figure | str:
    """Each completed trial as a line through its parameters to its score.

    Args:
        trials: All trials.
        axes: The parameters.
        title: Of the figure.

    Returns:
        The figure, or why there is none; a panel for each family of trials, with one score scale.
    """
    complete = sorted(_scored(trials, "complete"), key=lambda trial: trial.score or 0.0)
    if len(complete) < 2 or not axes:
        return "fewer than two trials have completed"
    scores = _scores(complete)
    norm = _norm(scores)
    scale: Literal["log", "linear"] = "log" if isinstance(norm, LogNorm) else "linear"
    score_axis = Axis("score", scale, min(scores), max(scores))
    kinds = families([trial.params for trial in complete], axes)
    width = max(len(kind.axes) for kind in kinds) + 1
    figure = new_figure(max(7.0, 1.75 * width), 1.2 + 3.8 * len(kinds), title)
    panels = figure.subplots(len(kinds), 1, squeeze=False)[:, 0]
    for plot, kind in zip(panels, kinds, strict=True):
        members = [complete[place] for place in reversed(kind.members)]  # the best on top
        first = width - len(kind.axes) - 1  # what families share stands below each other
        _draw_lines(plot, members, [*kind.axes, score_axis], first, norm)
        plot.set_xlim(-0.2, width - 0.55)
        plot.set_title(kind.label and f"{kind.label}: {len(members)} of them", fontsize=10)
    note = f"{len(complete)} completed trials; darker and lower at the right is better"
    panels[-1].set_xlabel(note)
    return figure


def _draw_lines(
    plot: Axes, trials: Sequence[TrialRecord], columns: Sequence[Axis], first: int, norm: Normalize
) -> None:
    """Trials through the same columns, the score last; the first one stands at `first`."""
    places = range(first, first + len(columns))
    colours = colormaps[_COLOURS].reversed()
    for trial in trials:
        score = float(trial.score or 0.0)
        heights = [_position(axis, trial.params[axis.name]) for axis in columns[:-1]]
        share = float(norm(score))
        plot.plot(
            places,
            [*heights, _position(columns[-1], score)],
            color=colours(0.08 + 0.92 * (1 - share)),
            alpha=0.9 if share < 0.25 else 0.45,
            linewidth=2.2 if trial is trials[-1] else 1.1,
        )
    for place, axis in zip(places, columns, strict=True):
        plot.axvline(place, color="0.25", linewidth=0.8)
        for height, text in _marks(axis):
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
    plot.set(yticks=[], ylim=(-0.04, 1.04))
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
    complete, pruned = _scored(trials, "complete"), _scored(trials, "pruned")
    everyone = complete + pruned
    if not complete or not axes:
        return "no trial has completed"
    columns = min(3 if len(axes) < 10 else 4, len(axes))
    rows = -(-len(axes) // columns)
    figure = new_figure(4.0 * columns + 0.8, 3.1 * rows + 0.6, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    norm = Normalize(0, max(1, *(trial.number for trial in everyone)))
    spread = 0.3 if len(everyone) >= _CROWD else 0.0
    image = None
    for index, axis in enumerate(axes):
        plot = grid[index // columns][index % columns]
        for group, hollow in ((pruned, True), (complete, False)):
            held = [trial for trial in group if axis.name in trial.params]
            x = [_slice_x(axis, trial, spread) for trial in held]
            points: dict[str, Any] = {"s": 26, "zorder": 2 if hollow else 3}
            if hollow:
                plot.scatter(x, _scores(held), c="none", edgecolors="0.6", **points)
            else:
                numbers = [trial.number for trial in held]
                points |= {"c": numbers, "norm": norm, "cmap": "plasma_r", "edgecolors": "0.3"}
                image = plot.scatter(x, _scores(held), linewidths=0.4, **points)
        _slice_axis(plot, axis)
        if index % columns == 0:
            plot.set_ylabel("validation score")
    for unused in range(len(axes), rows * columns):
        grid[unused // columns][unused % columns].set_visible(False)
    _scale(grid[0][0], "y", _scores(everyone))
    if image is not None:
        bar = figure.colorbar(image, ax=grid, label="trial (grey rings: pruned)", shrink=0.8)
        bar.locator = MaxNLocator(integer=True)
        bar.update_ticks()
    return figure


def _has_columns(axis: Axis) -> bool:
    """Whether an axis holds so few values that each has a column of its own."""
    return axis.kind == "choice" or (
        axis.kind == "linear" and axis.is_integer and axis.high - axis.low <= 12
    )


def _slice_x(axis: Axis, trial: TrialRecord, spread: float) -> float:
    """The value; a crowd in a column is spread a little, so that points do not hide others."""
    value = trial.params[axis.name]
    if axis.kind == "choice":
        value = axis.options.index(str(value)) if str(value) in axis.options else 0
    if _has_columns(axis):
        return float(value) + spread * ((0.618034 * trial.number) % 1.0 - 0.5)
    return float(value)


def _slice_axis(plot: Axes, axis: Axis) -> None:
    """Name, numbers and ends: the whole range that is searched, wherever the points lie."""
    plot.set_xlabel(axis.name)
    plot.grid(alpha=0.25)
    if axis.kind == "log":
        plot.set_xscale("log")
        plot.xaxis.set_major_locator(_log_locator(axis))
        plot.xaxis.set_minor_formatter(NullFormatter())
        plot.xaxis.set_major_formatter(FuncFormatter(plain))
        margin = max(1.05, (axis.high / axis.low) ** 0.04)
        plot.set_xlim(axis.low / margin, axis.high * margin)
        return
    if axis.kind == "choice":
        plot.set_xticks(range(len(axis.options)), axis.options)
    elif axis.is_integer:
        plot.xaxis.set_major_locator(MaxNLocator(integer=True))
    width = 0.5 if _has_columns(axis) else 0.04 * (axis.high - axis.low) or 0.5
    plot.set_xlim(axis.low - width, axis.high + width)


def draw_pareto(
    trials: Sequence[TrialRecord], front: Sequence[TrialRecord], title: str
) -> Figure | str:
    """The group's three criteria against each other, the Pareto set marked.

    Args:
        trials: All trials.
        front: Those that no other beats.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    known = [
        trial
        for trial in _scored(trials, "complete")
        if trial.train_loss is not None and trial.molecules_per_second is not None
    ]
    if not known:
        return "no completed trial has score, training loss and speed"
    members = {trial.number for trial in front}
    scores = np.array([trial.score for trial in known], dtype=np.float64)
    losses = np.array([trial.train_loss for trial in known], dtype=np.float64)
    speeds = np.array([trial.molecules_per_second for trial in known], dtype=np.float64)
    is_member = np.array([trial.number in members for trial in known])
    figure = new_figure(11.5, 4.8, title)
    panels = figure.subplots(1, 2)
    for plot, x, x_label, colour, colour_label in (
        (panels[0], speeds, f"{SPEED} (more is better)", losses, TRAIN),
        (panels[1], losses, f"{TRAIN} (less is better)", speeds, SPEED),
    ):
        points = plot.scatter(
            x, scores, c=colour, norm=_norm(list(colour)), cmap=_COLOURS, s=34, zorder=3
        )
        plot.scatter(
            x[is_member],
            scores[is_member],
            s=110,
            facecolors="none",
            edgecolors="#c51b7d",
            linewidths=1.6,
            zorder=4,
            label=f"Pareto set: {is_member.sum()} of {len(known)} completed trials",
        )
        _scale(plot, "x", list(x))
        _scale(plot, "y", list(scores))
        plot.set_xlabel(x_label)
        plot.set_ylabel(f"{SCORE}" if plot is panels[0] else "validation score")
        plot.grid(alpha=0.25)
        bar = figure.colorbar(points, ax=plot, label=colour_label)
        _number(bar.ax.yaxis, list(colour))
    panels[0].margins(x=0.1, y=0.08)
    _label_best(panels[0], known, speeds, scores, is_member)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, loc="outside lower center", frameon=False)
    return figure


def _label_best(
    plot: Axes,
    trials: Sequence[TrialRecord],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    is_member: npt.NDArray[np.bool_],
) -> None:
    chosen = [index for index in np.argsort(y) if is_member[index]][:_LABELLED]
    for index in chosen:
        plot.annotate(
            str(trials[index].number),
            (x[index], y[index]),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=8,
        )


def draw_verdicts(trials: Sequence[TrialRecord], title: str) -> Figure | str:
    """How trials ended and what their gradients said.

    Args:
        trials: All trials.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    counts = count_endings(trials)
    if not counts:
        return "no trial has ended"
    figure = new_figure(7.5, 1.5 + 0.38 * len(counts), title)
    axes = figure.subplots()
    names = [f"{state}: {what}" for state, what in counts][::-1]
    values = list(counts.values())[::-1]
    colours = [_STATE_COLOURS[state] for state, _ in counts][::-1]
    bars = axes.barh(names, values, color=colours, height=0.65)
    total = sum(values)
    texts = [f"{value} ({100 * value / total:.0f}%)" for value in values]
    axes.bar_label(bars, labels=texts, padding=4, fontsize=9)
    axes.set_xlim(0, max(values) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"trials ({total} ended)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def count_endings(trials: Sequence[TrialRecord]) -> dict[tuple[str, str], int]:
    """Trials by state and, if completed, verdict on the gradients, else reason.

    Args:
        trials: All trials.

    Returns:
        Counts, completed ones first, then pruned, then failed; the most frequent first.
    """
    endings: Counter[tuple[str, str]] = Counter(
        (trial.state, _ending(trial)) for trial in trials if trial.has_ended
    )
    order = list(_STATE_COLOURS)
    return dict(sorted(endings.items(), key=lambda item: (order.index(item[0][0]), -item[1])))


def _ending(trial: TrialRecord) -> str:
    if trial.state == "complete":
        return f"gradients {trial.verdict or 'unknown'}"
    words = {"halving": "halving (behind at a rung)", "out_of_memory": "out of memory"}
    reason = trial.reason or "unknown"
    return words.get(reason, reason)
