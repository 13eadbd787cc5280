"""What became of a study's trials: how far they came, and where their gradients failed."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qm9flow.evaluation.study_drawings import new_figure, plain
from qm9flow.tuning.plots import Axis
from qm9flow.tuning.records import TrialRecord

FATES = ("complete", "halving", "gradients", "failed")
"""What can become of a trial, in the order of the bars."""

_COLOURS = {
    "complete": "#1b7837",
    "halving": "#e08214",
    "gradients": "#762a83",
    "failed": "#b2182b",
}
_LABELS = {
    "complete": "completed",
    "halving": "behind the best third at a rung",
    "gradients": "vanishing, exploding or dead gradients",
    "failed": "crash or lack of memory",
}
_SEARCHED_AXES = 6
"""Parameters that are drawn, at most: the group asked for depth, width, rate and batch size."""
_BINS = 6


def fate(trial: TrialRecord) -> str:
    """What became of a trial that has ended.

    Args:
        trial: The trial.

    Returns:
        One of `FATES`.
    """
    if trial.state == "complete":
        return "complete"
    if trial.state == "failed":
        return "failed"
    return "halving" if trial.reason == "halving" else "gradients"


def draw_survival(trials: Sequence[TrialRecord], rungs: Sequence[int], title: str) -> Figure | str:
    """How many trials were still in work after each epoch, and why the others were not.

    Args:
        trials: All trials.
        rungs: Epochs after which trials were compared.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    ended = [trial for trial in trials if trial.has_ended]
    last = max((trial.epochs for trial in ended), default=0)
    if last == 0:
        return "no trial has done an epoch"
    figure = new_figure(8, 4.2, title)
    axes = figure.subplots()
    epochs = np.arange(1, last + 1)
    below = np.zeros(last)
    reached = np.array([trial.epochs for trial in ended])
    for name in FATES:
        here = np.array([fate(trial) == name for trial in ended])
        counts = np.array([(here & (reached >= epoch)).sum() for epoch in epochs], dtype=float)
        axes.bar(epochs, counts, bottom=below, color=_COLOURS[name], label=_LABELS[name])
        below += counts
    for epoch in rungs:
        axes.axvline(epoch + 0.5, color="0.2", linewidth=1.0, linestyle="--")
        axes.annotate(
            f"rung {epoch}",
            (epoch + 0.5, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -11),
            textcoords="offset points",
            fontsize=8,
        )
    for place, count in zip(epochs, below, strict=True):
        axes.annotate(f"{count:.0f}", (place, count), ha="center", va="bottom", fontsize=8)
    spent, full = sum(trial.epochs for trial in ended), last * len(ended)
    saved = 100.0 - 100.0 * spent / full
    axes.set_xlabel(f"epoch; {spent:,} epochs trained instead of {full:,}: {saved:.0f}% saved")
    axes.set_ylabel(f"trials that did it (of {len(ended):,})")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.legend(fontsize=8, title="what became of them", title_fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_health(trials: Sequence[TrialRecord], axes: Sequence[Axis], title: str) -> Figure | str:
    """Share of trials whose gradients failed, over each parameter.

    Args:
        trials: All trials.
        axes: The parameters; those that most trials have are drawn.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    ended = [trial for trial in trials if trial.has_ended]
    unhealthy = [trial for trial in ended if is_unhealthy(trial)]
    if not unhealthy:
        return "the gradients of all trials were healthy"
    shown = _most_common(ended, axes)
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(4.0 * columns + 0.6, 2.9 * rows + 0.7, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    verdicts = [name for name, _ in Counter(map(verdict_of, unhealthy)).most_common()]
    colours = dict(zip(verdicts, ("#762a83", "#d6604d", "#4d4d4d", "#f4a582"), strict=False))
    for plot, axis in zip(grid.flat, shown, strict=False):
        labels, groups = _binned(axis, ended)
        below = np.zeros(len(groups))
        for name in verdicts:
            share = [
                100.0 * sum(verdict_of(trial) == name for trial in group) / max(1, len(group))
                for group in groups
            ]
            plot.bar(range(len(groups)), share, bottom=below, color=colours[name], label=name)
            below += share
        texts = [f"{label}\nn {len(group)}" for label, group in zip(labels, groups, strict=True)]
        plot.set_xticks(range(len(groups)), texts, fontsize=7)
        plot.set_xlabel(axis.name)
        plot.spines[["top", "right"]].set_visible(False)
        plot.margins(y=0.1)
    for row in grid:
        row[0].set_ylabel("% of trials")
    for unused in list(grid.flat)[len(shown) :]:
        unused.set_visible(False)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, ncols=4, loc="outside lower center", frameon=False)
    return figure


def is_unhealthy(trial: TrialRecord) -> bool:
    """Whether a trial's gradients failed.

    Args:
        trial: The trial.

    Returns:
        Whether its verdict is known and not `healthy`.
    """
    return verdict_of(trial) not in ("healthy", "unknown")


def verdict_of(trial: TrialRecord) -> str:
    """What a trial's gradients said.

    Args:
        trial: The trial.

    Returns:
        The verdict, `unknown` if there is none.
    """
    return trial.verdict or "unknown"


def _most_common(trials: Sequence[TrialRecord], axes: Sequence[Axis]) -> list[Axis]:
    counts = {axis.name: sum(axis.name in trial.params for trial in trials) for axis in axes}
    ranked = sorted(axes, key=lambda axis: -counts[axis.name])
    return ranked[:_SEARCHED_AXES]


def _binned(axis: Axis, trials: Sequence[TrialRecord]) -> tuple[list[str], list[list[TrialRecord]]]:
    """Trials by the value of a parameter: each choice or small number, or equal steps between."""
    held = [trial for trial in trials if axis.name in trial.params]
    if axis.kind == "choice":
        labels = list(axis.options)
        return labels, [[t for t in held if str(t.params[axis.name]) == label] for label in labels]
    if axis.is_integer and axis.high - axis.low < _BINS:
        values = range(int(axis.low), int(axis.high) + 1)
        groups = [[t for t in held if t.params[axis.name] == value] for value in values]
        return [str(value) for value in values], groups
    spaced = np.geomspace if axis.kind == "log" else np.linspace
    edges = spaced(axis.low, axis.high, _BINS + 1)
    places = np.digitize([float(t.params[axis.name]) for t in held], edges[1:-1])
    groups = [[t for t, at in zip(held, places, strict=True) if at == k] for k in range(_BINS)]
    labels = [f"{plain(low)}-{plain(high)}" for low, high in itertools.pairwise(edges)]
    return labels, groups
