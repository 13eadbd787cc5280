"""All figures of a study: PNG for reports, one interactive page for looking closer."""

import html
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure

from qm9flow.evaluation import study_drawings as drawings
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.plots import StudyPicture, picture
from qm9flow.tuning.records import TrialRecord, show_study
from qm9flow.tuning.selection import pareto_front

FOLDER = "figures"
"""Where the figures are in the study's run."""

PAGE = "study.html"

_TITLES = {
    "history": "Scores in the order of the trials",
    "importances": "What makes the best trials good",
    "parallel": "Completed trials through their parameters",
    "slice": "Score over each parameter",
    "pareto": "Validation score, speed, training error",
    "verdicts": "How trials ended",
}


@dataclass(frozen=True)
class StudyFigures:
    """What was drawn.

    Attributes:
        files: The pictures and the page.
        skipped: Figures that could not be drawn, and why.
    """

    files: tuple[Path, ...]
    skipped: dict[str, str] = field(default_factory=dict)


def log_study_figures(
    stores: Stores,
    study_name: str,
    tracker: StudyTracker,
    trials: Sequence[TrialRecord] | None = None,
) -> dict[str, str]:
    """Draw a study's figures into its run.

    Args:
        stores: The addresses.
        study_name: The study.
        tracker: Of the study.
        trials: Its trials, perhaps with speeds measured alone; None reads them.

    Returns:
        Figures that could not be drawn, and why.

    Raises:
        StudyError: There is no such study, or the storage cannot be opened.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / FOLDER
        figures = write_study_figures(stores, study_name, folder, trials)
        tracker.log_artifact(folder)
    return figures.skipped


def write_study_figures(
    stores: Stores, study_name: str, folder: Path, trials: Sequence[TrialRecord] | None = None
) -> StudyFigures:
    """Draw a study's figures into a folder.

    Args:
        stores: The addresses.
        study_name: The study.
        folder: Made if missing.
        trials: Its trials, perhaps with speeds measured alone; None reads them.

    Returns:
        What was drawn: `<figure>.png`, and `study.html` with all of them, which needs no network.

    Raises:
        StudyError: There is no such study, or the storage cannot be opened.
    """
    known = picture(stores.optuna_url, study_name)
    if trials is None:
        trials = show_study(stores, study_name).trials
    front = pareto_front(trials)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    skipped: dict[str, str] = {}
    for name, drawn in _drawings(study_name, trials, front, known).items():
        if isinstance(drawn, str):
            skipped[name] = drawn
            continue
        files.append(folder / f"{name}.png")
        drawn.savefig(files[-1], dpi=120, metadata={"Software": None})
    interactive = known.figures | _interactive(trials, front)
    page = folder / PAGE
    page.write_text(_page(study_name, interactive, skipped), encoding="utf-8")
    return StudyFigures((*files, page), skipped)


def _drawings(
    study_name: str,
    trials: Sequence[TrialRecord],
    front: Sequence[TrialRecord],
    known: StudyPicture,
) -> dict[str, Figure | str]:
    titles = {name: f"{title} · {study_name}" for name, title in _TITLES.items()}
    n_complete = sum(trial.state == "complete" for trial in trials)
    importances: Figure | str = known.skipped.get("importances", "")
    if known.importances:
        importances = drawings.draw_importances(
            known.importances, n_complete, titles["importances"]
        )
    return {
        "history": drawings.draw_history(trials, titles["history"]),
        "importances": importances,
        "parallel": drawings.draw_parallel(trials, known.axes, titles["parallel"]),
        "slice": drawings.draw_slices(trials, known.axes, titles["slice"]),
        "pareto": drawings.draw_pareto(trials, front, titles["pareto"]),
        "verdicts": drawings.draw_verdicts(trials, titles["verdicts"]),
    }


def _interactive(trials: Sequence[TrialRecord], front: Sequence[TrialRecord]) -> dict[str, Any]:
    """The figures that Optuna does not have."""
    figures: dict[str, Any] = {}
    known = [
        trial
        for trial in trials
        if trial.state == "complete" and trial.train_loss and trial.molecules_per_second
    ]
    if known:
        is_member = [any(trial.number == other.number for other in front) for trial in known]
        figures["pareto"] = go.Figure(
            go.Scatter3d(
                x=[trial.molecules_per_second for trial in known],
                y=[trial.train_loss for trial in known],
                z=[trial.score for trial in known],
                mode="markers",
                text=[_hover(trial) for trial in known],
                hoverinfo="text",
                marker={
                    "size": [7 if member else 4 for member in is_member],
                    "color": ["#c51b7d" if member else "#35608d" for member in is_member],
                },
            )
        )
        figures["pareto"].update_layout(
            height=650,
            scene={
                "xaxis": {"title": "molecules/s", "type": "log"},
                "yaxis": {"title": drawings.TRAIN, "type": "log"},
                "zaxis": {"title": "validation score", "type": "log"},
            },
        )
    endings = drawings.count_endings(trials)
    if endings:
        figures["verdicts"] = go.Figure(
            go.Bar(
                x=list(endings.values()),
                y=[f"{state}: {what}" for state, what in endings],
                orientation="h",
            )
        )
        figures["verdicts"].update_layout(xaxis_title="trials", yaxis={"autorange": "reversed"})
    return figures


def _titled(figures: dict[str, Any]) -> list[tuple[str, Any]]:
    """Figures under their titles; `parallel: architecture painn` stands after `parallel`."""
    found = []
    for name, title in _TITLES.items():
        parts = [key for key in figures if key == name or key.startswith(f"{name}: ")]
        found += [(title + key.removeprefix(name), figures[key]) for key in parts]
    return found


def _hover(trial: TrialRecord) -> str:
    lines = [
        f"trial {trial.number}",
        f"score {trial.score:.4f}",
        f"{drawings.TRAIN} {trial.train_loss:.4g}",
        f"{trial.molecules_per_second:.0f} molecules/s",
    ]
    lines += [
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in trial.params.items()
    ]
    return "<br>".join(lines)


def _page(study_name: str, figures: dict[str, Any], skipped: dict[str, str]) -> str:
    """One page with all interactive figures; plotly.js is in it once."""
    parts: list[str] = []
    for title, figure in _titled(figures):
        figure.update_layout(title=None, template="plotly_white", margin={"t": 30})
        body = figure.to_html(full_html=False, include_plotlyjs=not parts)
        parts.append(f"<h2>{html.escape(title)}</h2>\n{body}")
    notes = "".join(
        f"<li>{html.escape(_TITLES[name])}: {html.escape(reason)}</li>"
        for name, reason in skipped.items()
    )
    missing = f"<h2>Not drawn</h2><ul>{notes}</ul>" if notes else ""
    name = html.escape(study_name)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        "<style>body{font-family:sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}"
        f"</style></head><body><h1>Study {name}</h1>\n"
        + "\n".join(parts)
        + missing
        + "</body></html>\n"
    )
