"""The part of the page with the best trials."""

from qm9flow.evaluation.fates import is_unhealthy, verdict_of
from qm9flow.evaluation.report.facts import Facts
from qm9flow.evaluation.report.interactive import setting
from qm9flow.evaluation.report.markup import (
    NOTHING,
    Cell,
    missing,
    run_link,
    section,
    table,
    text,
)
from qm9flow.evaluation.text_tables import number
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import by_score

TOP = 20
"""Trials that are listed."""


def ranking_section(facts: Facts) -> str:
    """The best trials.

    Args:
        facts: The study.

    Returns:
        Markup.
    """
    ranked = by_score(facts.trials)
    title = "Leaderboard"
    if not ranked:
        return section("leaderboard", title, "", missing("no trial has completed"))
    shown = ranked[:TOP]
    lead = f"The {len(shown)} best of {len(ranked):,} completed trials by validation score."
    if facts.finals:
        lead += ' <a href="#finals">Finals</a> decided which of all trials is <b>chosen</b>.'
    elif facts.selection is not None:
        lead += (
            f" Trials within ± {facts.selection.standard_error:.4f} of the best tie; the fastest "
            "of them is <b>chosen</b>."
        )
    names = [
        axis.name for axis in facts.parameters.axes if any(axis.name in t.params for t in shown)
    ]
    head = [Cell("#", True), Cell("trial"), Cell("score", True), Cell("training<br>loss", True)]
    head += [Cell("molecules/s", True), Cell("parameters", True), Cell("epochs", True)]
    head += [Cell(_broken(name), True, "wrap") for name in names]
    verdicts = any(map(is_unhealthy, shown))
    head += [*([Cell("gradients")] if verdicts else []), Cell("MLflow run")]
    rows = [
        (_kind(facts, trial), _row(facts, place, trial, names, verdicts))
        for place, trial in enumerate(shown, start=1)
    ]
    note = (
        '<p class="note"><span class="tag front">Pareto</span> no other trial is better in '
        "validation score, training loss and speed at once. All trials, with their errors by "
        "target: <code>leaderboard.csv</code> in the run of the study.</p>"
    )
    return section("leaderboard", title, lead, table(head, rows), note)


def _kind(facts: Facts, trial: TrialRecord) -> str:
    return "chosen" if _is_chosen(facts, trial) else ""


def _is_chosen(facts: Facts, trial: TrialRecord) -> bool:
    return facts.selection is not None and facts.selection.candidate.number == trial.number


def _row(
    facts: Facts, place: int, trial: TrialRecord, names: list[str], verdicts: bool
) -> list[Cell]:
    tags = ""
    if _is_chosen(facts, trial):
        tags += '<span class="tag candidate">chosen</span>'
    if any(trial.number == other.number for other in facts.front):
        tags += '<span class="tag front">Pareto</span>'
    size, speed = trial.parameters, trial.molecules_per_second
    values = [trial.params.get(name) for name in names]
    return [
        Cell(str(place), True),
        Cell(f"{trial.number}{tags}"),
        Cell(f"{trial.score:.4f}", True, "ours"),
        Cell(number(trial.train_loss), True),
        Cell(NOTHING if speed is None else f"{speed:,.0f}", True),
        Cell(NOTHING if size is None else f"{size:,}", True),
        Cell(f"{trial.epochs}", True),
        *(Cell("" if value is None else text(setting(value)), True) for value in values),
        *([Cell(text(verdict_of(trial)))] if verdicts else []),
        Cell(run_link(trial.run_id, facts.run_url(trial.run_id))),
    ]


def _broken(name: str) -> str:
    """A parameter's name, on two lines where it is long."""
    return text(name).replace("_", "_<wbr>")
