"""How far a study's trials came, in a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qm9flow.evaluation.drawing import INK, new_figure, tidy
from qm9flow.evaluation.fates import COLOURS, FATES, fate
from qm9flow.tuning.records import TrialRecord

_WRITTEN = 30
"""Epochs up to which the number of trials is written over each bar."""


def saved_share(trials: Sequence[TrialRecord], max_epochs: int) -> float:
    """How much of the work was not done because trials were stopped early.

    Args:
        trials: All trials.
        max_epochs: What each could have done.

    Returns:
        Epochs that pruned trials did not train, of all that the ended trials could have trained,
        0 to 1.
    """
    full = max_epochs * sum(trial.has_ended for trial in trials)
    pruned = [trial for trial in trials if trial.state == "pruned"]
    return sum(max_epochs - trial.epochs for trial in pruned) / full if full else 0.0


def draw_survival(
    trials: Sequence[TrialRecord], rungs: Sequence[int], max_epochs: int, title: str
) -> Figure | str:
    """How many trials did each epoch, and why the others did not.

    Args:
        trials: All trials.
        rungs: Epochs after which trials were compared.
        max_epochs: What each could have done.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    ended = [trial for trial in trials if trial.has_ended]
    if not any(trial.epochs for trial in ended):
        return "no trial has done an epoch"
    last = max(max_epochs, *(trial.epochs for trial in ended))
    figure = new_figure(10, 4.6, title)
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="x")
    epochs = np.arange(1, last + 1)
    below = np.zeros(last)
    reached = np.array([trial.epochs for trial in ended])
    for which, words in FATES.items():
        here = np.array([fate(trial) == which for trial in ended])
        counts = np.array([(here & (reached >= epoch)).sum() for epoch in epochs], dtype=float)
        label = f"{words} ({here.sum():,})"
        axes.bar(epochs, counts, bottom=below, color=COLOURS[which], width=0.82, label=label)
        below += counts
    for epoch in rungs:
        axes.axvline(epoch + 0.5, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        place = (epoch + 0.5, 1.0)
        axes.annotate(
            f"rung {epoch}",
            place,
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
            fontsize=9,
            color=INK,
        )
    if last <= _WRITTEN:
        for place_x, count in zip(epochs, below, strict=True):
            axes.annotate(f"{count:,.0f}", (place_x, count), ha="center", va="bottom", fontsize=9)
    spent = sum(trial.epochs for trial in ended)
    share = saved_share(trials, last)
    axes.set_xlabel(f"epoch ({spent:,} trained of {last * len(ended):,}: {share:.0%} saved)")
    axes.set_ylabel(f"trials that did it, of {len(ended):,}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.01, y=0.14)
    figure.legend(fontsize=9, ncols=4, loc="outside lower center", frameon=False)
    return figure
