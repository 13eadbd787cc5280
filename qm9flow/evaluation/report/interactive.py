"""The figures that people can point at: zoomed, brushed, with each trial's settings."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qm9flow.evaluation import axis_marks
from qm9flow.evaluation.drawing import (
    BEST_PLACES,
    BEST_TO_WORST,
    EARLY_TO_LATE,
    GREY,
    INK,
    RED,
    SPEED,
    TRAIN,
    is_wide,
)
from qm9flow.evaluation.fates import (
    COLOURS,
    FATES,
    Fate,
    fate,
    in_words,
    scored,
    scores,
    verdict_of,
    with_criteria,
)
from qm9flow.evaluation.parameter_drawings import axis_of_scores
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.text_tables import counted, number
from qm9flow.tuning.parameters import Axis, Family, families
from qm9flow.tuning.records import TrialRecord

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

OF_TRIALS = "trials"
"""Marks traces whose points are trials: the page writes each trial's settings once for all."""

_MANY = 300
_SPREAD = 0.3

_AXIS = {
    "gridcolor": "#e8ebef",
    "linecolor": "#b8c0ca",
    "showline": True,
    "zeroline": False,
    "ticks": "outside",
    "tickcolor": "#b8c0ca",
    "ticklen": 4,
    "title": {"standoff": 8, "font": {"size": 13}},
    "automargin": True,
}
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "margin": {"l": 60, "r": 16, "t": 16, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)


@dataclass(frozen=True)
class Plot:
    """One interactive figure.

    Attributes:
        figure: For plotly.
        label: Over it; may be empty.
        height: Pixels.
        min_width: Pixels below which it is scrolled, not squeezed.
    """

    figure: go.Figure
    label: str = ""
    height: int = 400
    min_width: int = 0


def plots(facts: Facts) -> dict[str, list[Plot]]:
    """A study's interactive figures.

    Args:
        facts: The study.

    Returns:
        By name of `pictures.TITLES`; an empty list where there is nothing to draw.
    """
    return {
        "history": _history(facts),
        "parallel": _parallel(facts),
        "slices": _slices(facts),
        "pareto": _pareto(facts),
    }


def describe(trials: Sequence[TrialRecord]) -> list[str]:
    """What is shown of each trial where somebody points at it.

    Args:
        trials: All trials.

    Returns:
        A few lines of plotly's own markup each, in order.
    """
    return ["<br>".join(_lines(trial)) for trial in trials]


def _lines(trial: TrialRecord) -> list[str]:
    ended = FATES[fate(trial)] if trial.has_ended else trial.state
    lines = [f"<b>trial {trial.number}</b>, {ended}"]
    if trial.has_ended and trial.state != "complete":
        lines[0] += f" ({in_words(trial.reason)}, epoch {trial.epochs})"
    if trial.score is not None:
        lines.append(f"score {trial.score:.4f}")
    if trial.train_loss is not None:
        lines.append(f"{TRAIN} {number(trial.train_loss)}")
    if trial.molecules_per_second is not None:
        lines.append(f"{trial.molecules_per_second:,.0f} molecules/s")
    if trial.verdict:
        lines.append(f"gradients {verdict_of(trial)}")
    return [*lines, *(f"{name} {setting(value)}" for name, value in _escaped(trial.params))]


def setting(value: Any) -> str:
    """A value of a parameter in few digits.

    Args:
        value: A number or a choice.

    Returns:
        The text.
    """
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _escaped(params: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (html.escape(name), html.escape(value) if isinstance(value, str) else value)
        for name, value in params.items()
    ]


def _points(
    trials: Sequence[TrialRecord], x: Sequence[float], y: Sequence[float], **more: Any
) -> Any:
    """A cloud of trials; the page adds what is shown where somebody points at one."""
    numbers = [trial.number for trial in trials]
    return go.Scatter(
        x=np.asarray(x, dtype=np.float64),
        y=np.asarray(y, dtype=np.float64),
        mode="markers",
        customdata=numbers,
        meta=OF_TRIALS,
        hoverinfo="text",
        **more,
    )


def _scale(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis where values differ much, with numbers that people write."""
    if values and is_wide(values):
        few = max(values) > 100 * min(values)
        return {"type": "log", "dtick": 1 if few else "D2", "tickformat": ",~g"}
    return {"type": "linear"}


def _figure(traces: list[Any], **layout: Any) -> go.Figure:
    return go.Figure(traces, {"template": _TEMPLATE, "hovermode": "closest", **layout})


def _history(facts: Facts) -> list[Plot]:
    everyone = scored(facts.trials)
    if not everyone:
        return []
    size = 8 if len(everyone) < _MANY else 5
    order: tuple[Fate, ...] = ("halving", "gradients", "failed", "complete")
    traces = []
    for which in order:
        held = scored(facts.trials, which)
        symbol = {"gradients": "diamond-open", "failed": "x"}.get(which, "circle-open")
        if which == "complete":
            symbol = "circle"
        marker = {"size": size, "symbol": symbol, "color": COLOURS[which], "opacity": 0.85}
        name = f"{FATES[which]} ({len(held):,})"
        if held:
            x = [trial.number for trial in held]
            traces.append(_points(held, x, scores(held), name=name, marker=marker))
    complete = scored(facts.trials, "complete")
    if complete:
        traces.append(_best_so_far(complete, facts.trials[-1].number))
    traces += _star(facts, lambda trial: trial.number)
    y = {"title": "validation score", **_scale(scores(everyone))}
    return [Plot(_figure(traces, xaxis={"title": "trial"}, yaxis=y), height=440)]


def _best_so_far(complete: Sequence[TrialRecord], last: int) -> Any:
    best = np.minimum.accumulate(scores(complete))
    return go.Scatter(
        x=np.append([trial.number for trial in complete], last),
        y=np.append(best, best[-1]),
        mode="lines",
        line={"shape": "hv", "color": INK, "width": 1.6},
        name="best so far",
        hoverinfo="skip",
    )


def _star(facts: Facts, x: Any) -> list[Any]:
    """The trial that goes on, or would."""
    trial = facts.candidate
    if trial is None or trial.score is None:
        return []
    marker = {"symbol": "star", "size": 15, "color": RED, "line": {"color": "white", "width": 1}}
    name = f"best trial ({trial.number})" if facts.selection is None else f"chosen ({trial.number})"
    return [_points([trial], [x(trial)], [trial.score], name=name, marker=marker)]


def _parallel(facts: Facts) -> list[Plot]:
    complete = sorted(scored(facts.trials, "complete"), key=lambda trial: -(trial.score or 0.0))
    axes = facts.parameters.axes
    if len(complete) < 2 or not axes:
        return []
    ranks = np.linspace(0.0, 1.0, len(complete))  # the highest lies on top: the best
    score_axis = axis_of_scores(scores(complete))
    kinds = families([trial.params for trial in reversed(complete)], axes)
    found = []
    for kind in kinds:
        members = sorted(len(complete) - 1 - place for place in kind.members)
        held = [complete[place] for place in members]
        figure = _coordinates(kind, held, ranks[members], score_axis)
        label = f"{kind.label}: {counted(len(held), 'trial')}" if kind.label else ""
        found.append(Plot(figure, label, 440, 140 * (len(kind.axes) + 1)))
    return found


def _coordinates(
    kind: Family, trials: list[TrialRecord], ranks: Any, score_axis: Axis
) -> go.Figure:
    columns = [(axis, [trial.params[axis.name] for trial in trials]) for axis in kind.axes]
    numbers = [trial.number for trial in trials]
    columns.append((score_axis, scores(trials)))
    dimensions = []
    for axis, values in columns:
        texts = axis_marks.marks(axis)
        dimensions.append(
            {
                "label": axis.name,
                "values": np.array([*map(axis_marks.line_place, repeat(axis), numbers, values)]),
                "range": [-0.05, 1.05],
                "tickvals": [place for place, _ in texts],
                "ticktext": [text for _, text in texts],
            }
        )
    pairs = zip(reversed(BEST_PLACES), reversed(BEST_TO_WORST), strict=True)
    colours = [[1.0 - place, colour] for place, colour in pairs]
    line = {"color": ranks, "colorscale": colours, "cmin": 0, "cmax": 1}
    trace = go.Parcoords(
        dimensions=dimensions,
        line=line,
        labelfont={"size": 13, "color": INK},
        tickfont={"size": 12, "color": INK},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
    )
    return _figure([trace], margin={"l": 60, "r": 50, "t": 56, "b": 24})


def _slices(facts: Facts) -> list[Plot]:
    complete = scored(facts.trials, "complete")
    others = [trial for trial in scored(facts.trials) if trial.state != "complete"]
    if not complete:
        return []
    y = {"title": "validation score", **_scale(scores(complete + others))}
    return [
        Plot(_slice(facts, axis, complete, others, y), axis.name, 300)
        for axis in facts.parameters.axes
    ]


def _slice(
    facts: Facts,
    axis: Axis,
    complete: list[TrialRecord],
    others: list[TrialRecord],
    y: dict[str, Any],
) -> go.Figure:
    size = 7 if len(complete) + len(others) < _MANY else 4

    def place(trial: TrialRecord) -> float:
        return axis_marks.slice_place(axis, trial.number, trial.params[axis.name], _SPREAD)

    traces = []
    for held, name in ((others, "stopped early"), (complete, "completed")):
        having = [trial for trial in held if axis.name in trial.params]
        marker: dict[str, Any] = {"size": size, "color": GREY, "opacity": 0.35}
        if held is complete:
            numbers = np.array([trial.number for trial in having], dtype=np.float64)
            marker = {"size": size, "color": numbers, "colorscale": EARLY_TO_LATE}
            marker |= {"line": {"color": INK, "width": 0.3}}
        traces.append(
            _points(having, [*map(place, having)], scores(having), name=name, marker=marker)
        )
    if facts.candidate is not None and axis.name in facts.candidate.params:
        traces += _star(facts, place)
    return _figure(traces, xaxis=_ticks(axis), yaxis=y, showlegend=False)


def _ticks(axis: Axis) -> dict[str, Any]:
    """The whole range that is searched, with numbers that people write."""
    if axis.kind == "choice":
        places = list(range(len(axis.options)))
        return {
            "tickvals": places,
            "ticktext": list(axis.options),
            "range": [-0.5, places[-1] + 0.5],
        }
    low, high = axis.low, axis.high
    values = [low + place * (high - low) for place, _ in axis_marks.marks(axis)]
    if axis.kind == "log":
        low, high = np.log10(low), np.log10(high)
        values = [10 ** (low + place * (high - low)) for place, _ in axis_marks.marks(axis)]
    pad = 0.5 if axis_marks.has_columns(axis) else 0.05 * (high - low)
    return {
        "type": axis.kind,
        "tickvals": values,
        "ticktext": [text for _, text in axis_marks.marks(axis)],
        "range": [low - pad, high + pad],
    }


def _pareto(facts: Facts) -> list[Plot]:
    members = {trial.number for trial in facts.front}
    known = sorted(with_criteria(facts.trials), key=lambda trial: trial.number in members)
    if not known:
        return []
    speeds = [trial.molecules_per_second or 0.0 for trial in known]
    losses = [trial.train_loss or 0.0 for trial in known]
    found = []
    for x, title, colour, bar in (
        (speeds, f"{SPEED} →", losses, TRAIN),
        (losses, f"← {TRAIN}", speeds, "molecules/s"),
    ):
        marker = {
            "size": [13 if trial.number in members else 7 for trial in known],
            "color": np.asarray(colour),
            "opacity": 0.95,
            "colorscale": "Viridis",
            "colorbar": {
                "title": {"text": bar, "side": "right", "font": {"size": 12}},
                "thickness": 12,
                "outlinewidth": 0,
            },
            "line": {
                "color": [RED if trial.number in members else "white" for trial in known],
                "width": [2.5 if trial.number in members else 0.5 for trial in known],
            },
        }
        points = _points(known, x, scores(known), marker=marker)
        x_axis = {"title": title, **_scale(x)}
        y_axis = {"title": "← validation score", **_scale(scores(known))}
        found.append(Plot(_figure([points], xaxis=x_axis, yaxis=y_axis), height=400))
    return [
        *found,
        Plot(_space(known, speeds, losses, members), "All three; drag to turn", 560, 560),
    ]


def _space(
    known: list[TrialRecord], speeds: list[float], losses: list[float], members: set[int]
) -> go.Figure:
    is_member = [trial.number in members for trial in known]
    points = go.Scatter3d(
        x=np.asarray(speeds),
        y=np.asarray(losses),
        z=np.asarray(scores(known)),
        mode="markers",
        customdata=[trial.number for trial in known],
        meta=OF_TRIALS,
        hoverinfo="text",
        marker={
            "size": [9 if member else 5 for member in is_member],
            "color": [RED if member else COLOURS["complete"] for member in is_member],
            "opacity": 0.9,
        },
    )
    axes = (("xaxis", "molecules/s", speeds), ("yaxis", TRAIN, losses))
    scene: dict[str, Any] = {name: {"title": title, **_scale(v)} for name, title, v in axes}
    scene["zaxis"] = {"title": "score", **_scale(scores(known))}
    scene |= {"aspectmode": "cube", "camera": {"eye": {"x": 1.6, "y": -1.6, "z": 0.8}}}
    return _figure([points], scene=scene, margin={"l": 0, "r": 0, "t": 0, "b": 0})
