"""A study in pictures, drawn with matplotlib and without a display: one function a picture."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qm9flow.evaluation import drawing
from qm9flow.evaluation.drawing import BLUE, INK, RED, SCORE, SPEED, TRAIN, new_figure
from qm9flow.evaluation.fates import (
    COLOURS,
    FATES,
    Fate,
    count_endings,
    of_fate,
    scored,
    scores,
    with_criteria,
)
from qm9flow.evaluation.text_tables import percent
from qm9flow.tuning.records import TrialRecord

_LABELLED = 8
"""Trials whose numbers are written beside their points, at most."""

_MANY = 300
"""Trials from which on points are small."""


def draw_history(trials: Sequence[TrialRecord], title: str) -> Figure | str:
    """Scores in the order of the trials, and the best so far.

    Args:
        trials: All trials.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    known = scored(trials)
    if not known:
        return "no trial has a score"
    figure = new_figure(10, 4.8, title)
    axes = figure.subplots()
    drawing.tidy(axes)
    size = 30 if len(known) < _MANY else 12
    for which in ("halving", "gradients", "complete"):
        _history_points(axes, trials, which, size)
    complete = scored(trials, "complete")
    last = max(trial.number for trial in trials)
    if complete:
        numbers = np.array([trial.number for trial in complete])
        best = np.minimum.accumulate(scores(complete))
        x, y = np.append(numbers, last), np.append(best, best[-1])
        label = f"best so far ({best[-1]:.4f})"
        axes.step(x, y, where="post", color=INK, linewidth=1.4, label=label, zorder=4)
    drawing.scale(axes, "y", scores(known))
    _mark_unscored(axes, trials)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    margin = 0.5 + 0.01 * len(trials)
    axes.set_xlim(-margin, last + margin)
    axes.set_xlabel("trial")
    axes.set_ylabel(SCORE)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=9, ncols=3, loc="outside lower center", frameon=False)
    return figure


def _history_points(axes: Axes, trials: Sequence[TrialRecord], which: Fate, size: int) -> None:
    held = scored(trials, which)
    if not held:
        return
    lowest = "" if which == "complete" else ", lowest score before"
    colour = COLOURS[which]
    axes.scatter(
        [trial.number for trial in held],
        scores(held),
        s=size,
        marker="D" if which == "gradients" else "o",
        facecolors=colour if which == "complete" else "none",
        edgecolors=colour,
        linewidths=0.9,
        alpha=0.85,
        zorder=3 if which == "complete" else 2,
        label=f"{FATES[which]} ({len(held):,}){lowest}",
    )


def _mark_unscored(axes: Axes, trials: Sequence[TrialRecord]) -> None:
    """Trials without a score stand along the lower edge."""
    known = {trial.number for trial in scored(trials)}
    markers: dict[Fate, str] = {"gradients": "D", "failed": "x"}
    for which, marker in markers.items():
        numbers = [t.number for t in of_fate(trials, which) if t.number not in known]
        if numbers:
            axes.plot(
                numbers,
                np.full(len(numbers), 0.02),
                marker,
                markersize=5,
                markerfacecolor="none",
                color=COLOURS[which],
                transform=axes.get_xaxis_transform(),
                label=f"{FATES[which]} ({len(numbers):,}), no score",
            )


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
    bars = axes.barh(names, shares, color=BLUE, height=0.65)
    axes.bar_label(bars, labels=[f"{share:.0f}%" for share in shares], padding=4, fontsize=9)
    axes.set_xlim(0, max(shares) * 1.12)
    axes.set_xlabel(f"importance for being in the best tenth, % (PED-ANOVA, {n_complete} trials)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


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
    known = with_criteria(trials)
    if not known:
        return "no completed trial has score, training loss and speed"
    members = {trial.number for trial in front}
    heights = np.array([trial.score for trial in known], dtype=np.float64)
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
            x,
            heights,
            c=colour,
            norm=drawing.colour_scale(list(colour)),
            cmap=drawing.SEQUENTIAL,
            s=34,
            zorder=3,
        )
        plot.scatter(
            x[is_member],
            heights[is_member],
            s=110,
            facecolors="none",
            edgecolors=RED,
            linewidths=1.6,
            zorder=4,
            label=f"Pareto set: {is_member.sum()} of {len(known)} completed trials",
        )
        drawing.scale(plot, "x", list(x))
        drawing.scale(plot, "y", list(heights))
        plot.set_xlabel(x_label)
        plot.set_ylabel(SCORE if plot is panels[0] else "validation score")
        drawing.tidy(plot)
        bar = figure.colorbar(points, ax=plot, label=colour_label)
        drawing.write_numbers(bar.ax.yaxis, list(colour))
    panels[0].margins(x=0.1, y=0.08)
    _label_best(panels[0], known, speeds, heights, is_member)
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
    """Numbers of the best members, as far as there is room for them."""
    across, up = (_within(np.log(np.maximum(values, 1e-30))) for values in (x, y))
    written: list[int] = []
    for index in (index for index in np.argsort(y) if is_member[index]):
        is_near = [
            abs(across[k] - across[index]) < 0.1 and abs(up[k] - up[index]) < 0.06 for k in written
        ]
        if any(is_near) or len(written) == _LABELLED:
            continue
        written.append(index)
        plot.annotate(
            str(trials[index].number),
            (x[index], y[index]),
            xytext=(6, -12),
            textcoords="offset points",
            fontsize=8,
        )


def _within(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values as shares of their range."""
    return values / (np.ptp(values) or 1.0)


def draw_endings(trials: Sequence[TrialRecord], title: str) -> Figure | str:
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
    names = [what for _, what in counts][::-1]
    values = list(counts.values())[::-1]
    colours = [COLOURS[which] for which, _ in counts][::-1]
    bars = axes.barh(names, values, color=colours, height=0.65)
    total = sum(values)
    texts = [f"{value:,} ({percent(value / total)})" for value in values]
    axes.bar_label(bars, labels=texts, padding=4, fontsize=9)
    axes.set_xlim(0, max(values) * 1.18)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"trials ({total:,} ended)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
