"""Pictures for `gradient_stop.py`: gradient diagrams of single trials, and scores of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from qm9flow.evaluation.study_drawings import new_figure
from qm9flow.training.verdicts import SEVERITY

FIRST_STEPS = 400
"""Steps that a diagram shows."""
FLOOR = 1e-13
"""Where a gradient of exactly zero is drawn."""
CEILING = 1e5

COLOURS = {
    "vanishing": "#e08214",
    "dead_relu": "#762a83",
    "exploding": "#b2182b",
    "dead": "#4d4d4d",
    "not stopped": "#1b7837",
}


def draw(studies: Mapping[str, Sequence[Any]], constant: float, folder: Path) -> None:
    """Write both pictures; `studies` are judged trials by the study's name."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_diagrams(studies, folder / "gradient_diagrams.png")
    draw_scores(studies, constant, folder / "gradient_stop.png")


def chosen(studies: Mapping[str, Sequence[Any]]) -> list[tuple[str, Any]]:
    """One trial for each verdict, the deepest, and the best trial of all that was not stopped."""
    trials = [(name, item) for name, of in studies.items() for item in of]
    alive = [
        pair for pair in trials if pair[1].reason is None and len(pair[1].recorded.samples) > 40
    ]
    found = [min(alive, key=lambda pair: pair[1].score)]
    for reason in SEVERITY[1:]:
        of = [
            pair for pair in trials if pair[1].reason == reason and 8 < pair[1].step <= FIRST_STEPS
        ]
        if of:
            found.append(max(of, key=lambda pair: _interest(pair[1])))
    return found


def _interest(item: Any) -> tuple[int, int]:
    """Layers, and steps to see, at most `FIRST_STEPS`."""
    return len(item.recorded.samples[0].gradient_rms), min(item.steps, FIRST_STEPS)


def draw_diagrams(studies: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Each layer's gradient over the first steps, and where the trial would have been stopped."""
    shown = chosen(studies)
    figure = new_figure(4.4 * len(shown), 3.9, "Gradients of single trials, layer by layer")
    row = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (name, item) in zip(row, shown, strict=True):
        _diagram(axes, name, item)
    row[0].set_ylabel("root mean square (bottom: exactly zero)")
    layers = figure.colorbar(
        _mappable(), ax=list(row), shrink=0.85, ticks=[0.0, 1.0], label="layer"
    )
    layers.ax.set_yticklabels(["first", "last"])
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _mappable() -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(Normalize(0.0, 1.0), colormaps["viridis"])


def _diagram(axes: Axes, name: str, item: Any) -> None:
    samples = [sample for sample in item.recorded.samples if sample.step <= FIRST_STEPS]
    steps = [sample.step for sample in samples]
    sizes = np.stack([sample.gradient_rms for sample in samples])
    sizes = np.where(np.isfinite(sizes), np.maximum(sizes, FLOOR), np.nan)
    count = sizes.shape[1]
    for layer in range(count):
        colour = colormaps["viridis"](layer / max(1, count - 1))
        axes.plot(steps, sizes[:, layer], color=colour, linewidth=0.9)
    axes.set_yscale("log")
    axes.set_ylim(FLOOR / 3, CEILING)
    params = item.trial.params
    if item.reason is not None:
        axes.axvline(item.step, color="#b2182b", linewidth=1.4)
    said = f"{item.reason}, stopped at step {item.step}" if item.reason else "healthy"
    axes.set_title(
        f"{said}\n{name}, trial {item.trial.number}: {params['conv_layers']} + "
        f"{params['fc_layers']} layers of {params['hidden']}, batch {params['batch_size']}, "
        f"rate {params['learning_rate']:.1g}",
        fontsize=8,
    )
    axes.set_xlabel(f"step; final score {item.score:.3g}")
    axes.spines[["top", "right"]].set_visible(False)


def draw_scores(studies: Mapping[str, Sequence[Any]], constant: float, path: Path) -> None:
    """Best scores of the stopped and of the others, study by study."""
    figure = new_figure(
        2.6 * len(studies) + 1.6, 4.2, "Scores that trials reach if nothing stops them"
    )
    row = figure.subplots(1, len(studies), sharey=True, squeeze=False)[0]
    top = 1.6 * constant
    for axes, (name, trials) in zip(row, studies.items(), strict=True):
        _scores(axes, trials, top)
        axes.axhline(constant, color="0.4", linewidth=0.9, linestyle="--")
        best = sorted(item.score for item in trials)[: max(1, round(0.05 * len(trials)))]
        axes.axhspan(0.0, best[-1], color="#1b7837", alpha=0.12)
        axes.set_title(f"{name}: {len(trials)} trials", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylim(0.2, top * 1.03)
    row[0].set_ylabel("best validation score")
    figure.supxlabel(
        "dashed: a constant prediction; shaded: the best 5%; at the top: worse scores, or none",
        fontsize=8,
    )
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _scores(axes: Axes, trials: Sequence[Any], top: float) -> None:
    names = [name for name in ("not stopped", *SEVERITY[1:]) if _of(trials, name)]
    scatter = np.random.default_rng(0)
    for place, name in enumerate(names):
        scores = np.minimum([item.score for item in _of(trials, name)], top)
        across = place + scatter.uniform(-0.25, 0.25, len(scores))
        axes.plot(across, scores, ".", color=COLOURS[name], markersize=6, alpha=0.75)
    labels = [f"{name}\n{len(_of(trials, name))}" for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7)
    axes.set_xlim(-0.6, len(names) - 0.4)


def _of(trials: Sequence[Any], name: str) -> list[Any]:
    return [item for item in trials if (item.reason or "not stopped") == name]
