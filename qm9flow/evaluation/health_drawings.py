"""Which hyperparameters make gradients fail, as heat maps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm9flow.evaluation.drawing import INK, new_figure
from qm9flow.evaluation.health import (
    ENOUGH,
    Column,
    HealthMap,
    failing_verdicts,
    health_maps,
    largest_share,
)
from qm9flow.evaluation.text_tables import percent
from qm9flow.tuning.parameters import Axis
from qm9flow.tuning.records import TrialRecord

_COLOURS = "RdPu"
_COLUMNS = 2
_ROOMY = 4
"""Columns up to which a range stands on one line."""

_DARK = 0.55
"""Of the largest share: from there on numbers are written in white."""


def draw_health(trials: Sequence[TrialRecord], axes: Sequence[Axis], title: str) -> Figure | str:
    """Share of trials with each failing verdict, over each parameter.

    Args:
        trials: All trials.
        axes: The parameters; those that most trials have are drawn.
        title: Of the figure.

    Returns:
        The figure, or why there is none.
    """
    maps, verdicts = health_maps(trials, axes), failing_verdicts(trials)
    if not any(column.trials for item in maps for column in item.columns):
        return "no trial with a verdict on its gradients has ended"
    if not verdicts:
        return "the gradients of all trials were healthy"
    top = largest_share(maps, verdicts)
    rows = -(-len(maps) // _COLUMNS)
    figure = new_figure(11.5, rows * (1.15 + 0.42 * len(verdicts)) + 0.8, title)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    images = [
        _panel(plot, item, verdicts, top) for plot, item in zip(grid.flat, maps, strict=False)
    ]
    for unused in list(grid.flat)[len(maps) :]:
        unused.set_visible(False)
    bar = figure.colorbar(images[-1], ax=grid, shrink=0.8, aspect=25, format="{x:.0f}%")
    bar.set_label("share of the trials in a column", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def _panel(plot: Axes, item: HealthMap, verdicts: Sequence[str], top: float) -> Any:
    """One parameter: a row a verdict, a column a range of values; few trials are written pale."""
    shares = np.array([[column.share(name) for column in item.columns] for name in verdicts])
    plot.set_facecolor("0.94")  # no trial has such a value
    image = plot.imshow(100 * shares, aspect="auto", cmap=_COLOURS, vmin=0, vmax=100 * top)
    for (row, place), share in np.ndenumerate(shares):
        if np.isfinite(share):
            few = item.columns[place].trials < ENOUGH
            colour = "white" if share > _DARK * top else "0.55" if few else INK
            plot.text(
                place, row, percent(share), ha="center", va="center", fontsize=9, color=colour
            )
    texts = [_below(column, len(item.columns)) for column in item.columns]
    plot.set_xticks(range(len(texts)), texts, fontsize=8)
    plot.set_yticks(range(len(verdicts)), verdicts, fontsize=9)
    plot.tick_params(length=0)
    plot.set_xticks(np.arange(len(texts) - 1) + 0.5, minor=True)
    plot.set_yticks(np.arange(len(verdicts) - 1) + 0.5, minor=True)
    plot.grid(which="minor", color="white", linewidth=2)
    plot.tick_params(which="minor", length=0)
    plot.set_title(item.name, fontsize=10, color=INK)
    plot.spines[:].set_visible(False)
    return image


def _below(column: Column, columns: int) -> str:
    """Values and number of trials, on more lines where there is little room."""
    label = column.label.replace(" to ", "\nto ") if columns > _ROOMY else column.label
    return f"{label}\nn {column.trials:,}"
