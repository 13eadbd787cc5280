"""An assessment in pictures, drawn with matplotlib, without a display: one function a picture."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from qm9flow.evaluation.assessment import Assessment
from qm9flow.evaluation.breakdown import Group
from qm9flow.evaluation.drawing import new_figure
from qm9flow.evaluation.literature import REPORTED
from qm9flow.evaluation.text_tables import number
from qm9flow.properties import TARGETS, get

Floats = npt.NDArray[np.float64]

FEW = 30
"""Molecules below which a mean is drawn hollow."""

_BINS = 90
"""Of the density that colours points, along each axis."""

_LINES = {
    "mu": "#4477aa",
    "alpha": "#66ccee",
    "homo": "#228833",
    "lumo": "#88aa22",
    "gap": "#ccbb44",
    "r2": "#ee6677",
    "zpve": "#aa3377",
    "u0": "#222222",
    "cv": "#999999",
}
"""Targets by size and element; U, H and G go with U0. Colours after Paul Tol's `bright`."""

_KINDS = {
    "heavy_atoms": "atoms other than hydrogen",
    "atoms": "atoms",
    "element": "element in the molecule",
}


def draw_parity(found: Assessment) -> Figure:
    """Predicted over true values, one panel a target of the literature.

    Totals of -11,000 eV would show a straight line whatever the errors are: where the atomization
    energy has the same errors it is drawn instead.

    Args:
        found: What is drawn.

    Returns:
        The figure.
    """
    figure = new_figure(13, 9.6, f"Predicted over true values: {found.title}")
    grid = figure.subplots(3, 4)
    points = None
    for axes, target in zip(grid.flat, _parity_targets(found), strict=True):
        column = TARGETS.index(target)
        points = _parity_panel(axes, found.truth[:, column], found.predicted[:, column])
        item = get(target)
        axes.set_title(f"{target}, {item.unit}", fontsize=10)
        spread = found.residuals[column]
        axes.text(
            0.04,
            0.96,
            f"MAE {number(spread.mae, 3)}\nRMSE {number(spread.rmse, 3)}\n"
            f"bias {number(spread.bias, 2)}\n95% below {number(spread.p95, 3)}",
            transform=axes.transAxes,
            va="top",
            fontsize=8,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
        )
    figure.supxlabel("true", fontsize=11)
    figure.supylabel("predicted", fontsize=11)
    if points is not None:
        figure.colorbar(
            points,
            ax=grid,
            label="density of molecules, relative to the densest place",
            shrink=0.6,
            aspect=40,
        )
    return figure


def _parity_targets(found: Assessment) -> list[str]:
    errors = found.predicted - found.truth
    chosen = []
    for target in REPORTED:
        atomization = f"{target}_atom"
        same = atomization in TARGETS and np.allclose(
            errors[:, TARGETS.index(target)], errors[:, TARGETS.index(atomization)], atol=1e-4
        )
        chosen.append(atomization if same else target)
    return chosen


def _parity_panel(axes: Axes, true: Floats, predicted: Floats) -> PathCollection:
    """Points, the densest on top, coloured by how many lie around them."""
    both = np.concatenate([true, predicted])
    low, high = float(both.min()), float(both.max())
    margin = 0.03 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    counts, edges, _ = np.histogram2d(true, predicted, bins=_BINS, range=(ends, ends))
    x, y = (np.clip(np.digitize(v, edges) - 1, 0, _BINS - 1) for v in (true, predicted))
    density = counts[x, y]
    order = np.argsort(density, kind="stable")
    axes.plot(ends, ends, color="0.35", linewidth=0.8, zorder=1)
    points = axes.scatter(
        true[order],
        predicted[order],
        c=density[order] / density.max(),
        norm=LogNorm(1e-3, 1),
        cmap="viridis",
        s=4,
        linewidths=0,
        zorder=2,
    )
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.2)
    return points


def draw_residuals(found: Assessment) -> Figure:
    """How absolute errors spread, in chemical accuracies: one bar a target of the literature.

    Args:
        found: What is drawn.

    Returns:
        The figure.
    """
    figure = new_figure(9.5, 5.6, f"Absolute errors: {found.title}")
    axes = figure.subplots()
    shown = [target for target in REPORTED if get(target).chemical_accuracy][::-1]
    for row, target in enumerate(shown):
        column = TARGETS.index(target)
        spread = found.residuals[column]
        accuracy = get(target).chemical_accuracy or 1.0
        errors = np.abs(found.predicted[:, column] - found.truth[:, column]) / accuracy
        p5, p25, p50, p75, p95 = np.percentile(errors, (5, 25, 50, 75, 95))
        axes.plot([p5, p95], [row, row], color="#9ab4cf", linewidth=3, solid_capstyle="butt")
        axes.plot([p25, p75], [row, row], color="#35608d", linewidth=9, solid_capstyle="butt")
        axes.plot(p50, row, "|", color="white", markersize=9, markeredgewidth=1.6)
        axes.plot(spread.mae / accuracy, row, "D", color="#e08214", markersize=5, zorder=4)
        axes.plot(errors.max(), row, "x", color="#b2182b", markersize=6)
        axes.annotate(
            f"{100 * (spread.within_accuracy or 0):.1f}%",
            (1.01, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
    axes.annotate(
        "within 1", (1.01, len(shown) - 0.35), xycoords=("axes fraction", "data"), fontsize=9
    )
    axes.axvline(1, color="0.2", linewidth=1, linestyle="--", zorder=0)
    axes.set_xscale("log")
    _plain_log(axes, "x")
    labels = [
        f"{target}  ({get(target).chemical_accuracy:g} {get(target).unit})" for target in shown
    ]
    axes.set_yticks(range(len(shown)), labels, fontsize=9)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel("|predicted - true| / chemical accuracy (in brackets)")
    axes.grid(axis="x", alpha=0.25)
    handles = [
        Line2D([], [], color="#9ab4cf", linewidth=3, label="5% to 95% of the molecules"),
        Line2D([], [], color="#35608d", linewidth=9, label="25% to 75%, median"),
        Line2D([], [], color="#e08214", marker="D", linestyle="", label="mean (MAE)"),
        Line2D([], [], color="#b2182b", marker="x", linestyle="", label="largest"),
    ]
    figure.legend(handles=handles, ncols=4, fontsize=9, loc="outside lower center", frameon=False)
    return figure


def draw_groups(found: Assessment) -> Figure:
    """Errors by size and by element, in chemical accuracies, over the molecules in each group.

    Args:
        found: What is drawn.

    Returns:
        The figure.
    """
    figure = new_figure(13, 6.6, f"Mean absolute errors by size and element: {found.title}")
    grid = figure.subplots(2, 3, sharex="col", sharey="row", height_ratios=[3, 1])
    for column, (kind, label) in enumerate(_KINDS.items()):
        groups = found.groups[kind]
        upper, lower = grid[0][column], grid[1][column]
        for target in _LINES:
            _group_line(upper, groups, target, is_line=kind != "element")
        upper.axhline(1, color="0.2", linewidth=1, linestyle="--", zorder=0)
        upper.set_yscale("log")
        upper.grid(alpha=0.25)
        places = range(len(groups))
        bars = lower.bar(places, [group.molecules for group in groups], color="0.7")
        texts = [f"{group.molecules:,}" for group in groups]
        lower.bar_label(bars, labels=texts, fontsize=8, padding=1)
        lower.set_xticks(places, [group.key for group in groups])
        lower.set_xlabel(label)
    grid[0][0].set_ylabel("MAE / chemical accuracy")
    _plain_log(grid[0][0], "y")
    most = max(group.molecules for groups in found.groups.values() for group in groups)
    grid[1][0].set(yscale="log", ylim=(0.7, 6 * most), ylabel="molecules")
    _plain_log(grid[1][0], "y", steps=(1.0,))
    handles = [
        Line2D([], [], color=colour, marker="o", label=target) for target, colour in _LINES.items()
    ]
    handles.append(
        Line2D(
            [], [], color="0.4", marker="o", markerfacecolor="white", linestyle="",
            label=f"fewer than {FEW} molecules",
        )
    )  # fmt: skip
    figure.legend(handles=handles, ncols=10, fontsize=9, loc="outside lower center", frameon=False)
    return figure


def _group_line(axes: Axes, groups: tuple[Group, ...], target: str, is_line: bool) -> None:
    accuracy = get(target).chemical_accuracy or 1.0
    heights = [group.mae[target] / accuracy for group in groups]
    colour = _LINES[target]
    offset = 0.0 if is_line else 0.07 * (list(_LINES).index(target) - len(_LINES) // 2)
    places = np.arange(len(groups)) + offset
    if is_line:
        axes.plot(places, heights, color=colour, linewidth=1.2)
    faces = ["white" if group.molecules < FEW else colour for group in groups]
    axes.scatter(places, heights, c=faces, edgecolors=colour, s=26, zorder=3)


def _plain_log(axes: Axes, which: str, steps: tuple[float, ...] = (1.0, 3.0)) -> None:
    """Numbers as people write them along a logarithmic axis."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=steps, numticks=12))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
