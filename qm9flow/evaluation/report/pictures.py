"""All pictures of a report, by name."""

from matplotlib.figure import Figure

from qm9flow.evaluation.health_drawings import draw_health
from qm9flow.evaluation.parameter_drawings import draw_parallel, draw_slices
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.study_drawings import (
    draw_endings,
    draw_history,
    draw_importances,
    draw_pareto,
)
from qm9flow.evaluation.survival_drawings import draw_survival

TITLES = {
    "history": "Scores in the order of the trials",
    "importances": "What makes the best trials good",
    "parallel": "Completed trials through their parameters",
    "slices": "Score over each parameter",
    "pareto": "Validation score, speed, training error",
    "survival": "Trials still in work after each epoch",
    "endings": "How trials ended",
    "health": "Where gradients failed",
}
"""Names of the files, without `.png`, and what they show."""


def draw_pictures(facts: Facts) -> dict[str, Figure | str]:
    """Draw a study.

    Args:
        facts: The study.

    Returns:
        By name of `TITLES`, the figure or why there is none.
    """
    study, trials, axes = facts.study, facts.trials, facts.parameters.axes
    titles = {name: f"{title} · {study.name}" for name, title in TITLES.items()}
    importances: Figure | str = facts.parameters.why_no_importances
    if facts.parameters.importances:
        importances = draw_importances(
            facts.parameters.importances, facts.completed, titles["importances"]
        )
    return {
        "history": draw_history(trials, titles["history"]),
        "importances": importances,
        "parallel": draw_parallel(trials, axes, titles["parallel"]),
        "slices": draw_slices(trials, axes, titles["slices"]),
        "pareto": draw_pareto(trials, facts.front, titles["pareto"]),
        "survival": draw_survival(trials, facts.rungs, study.config.max_epochs, titles["survival"]),
        "endings": draw_endings(trials, titles["endings"]),
        "health": draw_health(trials, axes, titles["health"]),
    }
