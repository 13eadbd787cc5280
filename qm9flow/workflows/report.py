"""What a study tells people: before, between and after."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from qm9flow.config import StudyConfig
from qm9flow.evaluation.text_tables import counted
from qm9flow.locations import without_password
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning import pruning
from qm9flow.tuning.coordinator import StudyResult
from qm9flow.tuning.executors import Placement
from qm9flow.tuning.finalists import rounds
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.retention import SizeEstimate
from qm9flow.tuning.selection import Final, Selection, best_final, by_score
from qm9flow.tuning.study import OpenStudy
from qm9flow.workflows.fitting import Fitted
from qm9flow.workflows.look_further import look_further, named
from qm9flow.workflows.publish import Published
from qm9flow.workflows.trained import Trained

MEGABYTE = 1e6


def plan(opened: OpenStudy, size: SizeEstimate, placement: Placement | None, fit: Fitted) -> str:
    """What is about to happen.

    Args:
        opened: The study.
        size: Room that it will take.
        placement: Where its trials run.
        fit: What was chosen for this machine, and how long it will take.

    Returns:
        A few lines.
    """
    study = opened.config
    train = "all" if study.train_size is None else f"{study.train_size:,}"
    kept = "all" if study.keep_models is None else f"the best {study.keep_models}"
    lines = [
        f"study {opened.name}: {counted(study.n_trials, 'trial')} of preset {opened.space.name}, "
        f"sampler {study.sampler}, seed {study.seed}",
        f"  a trial: {train} training molecules, {counted(study.max_epochs, 'epoch')} at most"
        f"{_compared(study)}",
        f"  {_where(placement)}",
        f"  time: {_time(study, fit, placement)}",
        f"  disk: about {size.total / MEGABYTE:.0f} MB ({kept} models kept)",
        f"  records: {without_password(opened.stores.tracking_uri)}",
    ]
    if chosen := [name for name in fit.chosen if getattr(study, name)]:
        options = ", ".join(f"{name} {getattr(study, name):g}" for name in chosen)
        lines.append(f"  chosen to fit {study.n_trials} trials and this machine: {options}")
    return "\n".join(lines)


def _time(study: StudyConfig, fit: Fitted, placement: Placement | None) -> str:
    limit = "" if study.timeout_minutes is None else f", {study.timeout_minutes:g} min at most"
    final = f"final training {study.final_minutes:g} min at most"
    if study.finalists > 1 and not (placement and placement.slots is None):
        slots = placement.slots or 1 if placement else 1
        parts = rounds(min(study.finalists, study.n_trials), study.final_minutes)
        minutes = sum(math.ceil(size / slots) * each for size, each in parts)
        final = f"finals about {_minutes(minutes)}, {final}"
    if fit.search_minutes is None:
        return f"{final}{', search' + limit.lstrip(',') if limit else ''}"
    return f"search about {_minutes(fit.search_minutes)}{limit}, {final}"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _compared(study: StudyConfig) -> str:
    at = pruning.rungs_of(study)
    watched = "" if study.gradient_stop == "on" else "; gradients stop none"
    if not at:
        return watched
    epochs = " and ".join(map(str, at))
    grown = ", each time on thrice the molecules" if study.halving == "train_size" else ""
    return f"; the best third goes on after epoch {epochs}{grown}{watched}"


def _where(placement: Placement | None) -> str:
    if placement is None:
        return "one trial at a time, in this process"
    share = f", {placement.gpus:g} GPU each" if placement.gpus else ""
    where = f"on the cluster at {placement.address}" if placement.address else "on this machine"
    if placement.slots is None:
        return f"as many trials at a time as the cluster at {placement.address} holds{share}"
    many = "one trial" if placement.slots == 1 else f"{placement.slots} trials"
    return f"{many} at a time, {where}{share}"


def search(result: StudyResult) -> str:
    """How the search went.

    Args:
        result: All trials.

    Returns:
        One line, and why trials failed.
    """
    counts = ", ".join(f"{number} {state}" for state, number in sorted(result.counts.items()))
    counts = counts or "none"
    lines = [f"search: {counts} of {result.total} trials in {result.seconds / 60:.1f} min"]
    ended = sum(item.has_ended for item in result.trials)
    if ended > result.total:
        lines.append(
            f"  {ended} trials had ended before, more than the {result.total} asked for now: "
            "all of them count, and no other is tried"
        )
    if result.ending == "timeout":
        lines.append("  the time is up; the same study started again goes on with the trials left")
    lines += [
        f"  trial {item.number} failed: {item.message or item.reason}"
        for item in result.trials
        if item.state == "failed"
    ]
    return "\n".join(lines)


def choice(result: StudyResult, selection: Selection) -> str:
    """Which trial goes on, and what it was chosen from.

    Args:
        result: All trials.
        selection: What was chosen.

    Returns:
        The Pareto set as a table, and the candidate.
    """
    lines = [
        "no other trial beats these in validation score, training error and speed:",
        "  trial   score  train loss  molecules/s  settings",
    ]
    lines += [
        f"  {item.number:5d}  {item.score or 0:6.4f}  {item.train_loss or 0:10.4f}  "
        f"{item.molecules_per_second or 0:11.0f}  {settings(item.params)}"
        for item in selection.front
    ]
    best = by_score(result.trials)[0]
    candidate = selection.candidate
    if selection.finals:
        return "\n".join([*lines, *finals_lines(selection.finals, candidate.number)])
    why = (
        "the lowest score"
        if candidate.number == best.number
        else f"the fastest within the standard error of trial {best.number}"
    )
    lines.append(
        f"candidate: trial {candidate.number}, score {candidate.score:.4f} "
        f"+- {selection.standard_error:.4f} ({why})"
    )
    return "\n".join(lines)


def finals_lines(finals: Sequence[Final], candidate: int) -> list[str]:
    """How trials did that were trained further, and which goes on.

    Args:
        finals: Of all rounds.
        candidate: The trial's number.

    Returns:
        A table, and a line under it.
    """
    lines = ["trained further, on the whole split:", "  trial  minutes  epochs   score"]
    lines += [
        f"  {item.number:5d}  {item.minutes:7.2f}  {item.epochs:6d}  "
        f"{f'failed: {item.reason}' if item.score is None else f'{item.score:6.4f}'}"
        for item in sorted(finals, key=_by_round)
    ]
    winner = best_final(finals)
    if winner is None:
        return [*lines, f"candidate: trial {candidate}, as all of these failed"]
    return [*lines, f"candidate: trial {candidate}, score {winner.score:.4f} in the last round"]


def worse_than_in_finals(trained: Trained, selection: Selection) -> str | None:
    """A final training that came to less than a shorter one had: something slowed it down.

    Args:
        trained: The candidate, trained to the end.
        selection: With its finals, if there were any.

    Returns:
        What is odd and what to do; None if nothing is.
    """
    winner, score = best_final(selection.finals), trained.best_metrics["val/score"]
    if winner is None or winner.score is None or score <= winner.score:
        return None
    return (
        f"the final training came to {score:.4f} in {counted(trained.epochs, 'epoch')}, but the "
        f"finals' {winner.minutes:g} min to {winner.score:.4f}: was the machine busy? The study "
        "resumed with other --final-minutes holds finals and trains anew"
    )


def _by_round(item: Final) -> tuple[float, bool, float]:
    return item.minutes, item.score is None, item.score or 0.0


def finals_table(
    selection: Selection, records: Sequence[TrialRecord]
) -> list[dict[str, int | float | str | bool | None]]:
    """How trials did that were trained further.

    Args:
        selection: With its finals.
        records: All trials.

    Returns:
        A row a training: trial, minutes, epochs, score, that of the search, run, settings.
    """
    names = {name: None for item in selection.finals for name in records[item.number].params}
    return [
        {
            "trial": item.number,
            "minutes": item.minutes,
            "epochs": item.epochs,
            "score": item.score,
            "failed": item.reason,
            "score_of_trial": records[item.number].score,
            "run_id": item.run_id,
            **{name: records[item.number].params.get(name) for name in names},
        }
        for item in sorted(selection.finals, key=_by_round)
    ]


def settings(params: Mapping[str, Any]) -> str:
    """A trial's point in few words.

    Args:
        params: Names and values.

    Returns:
        One line.
    """
    return ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def marked(rows: Iterable[Mapping[str, Any]], selection: Selection) -> list[dict[str, Any]]:
    """A leaderboard with what the selection found.

    Args:
        rows: One a trial, with its number as `trial`.
        selection: What was chosen.

    Returns:
        The rows, each with `molecules_per_second_alone`, `pareto` and `candidate`.
    """
    front = {item.number for item in selection.front}
    return [
        {
            **row,
            "molecules_per_second_alone": selection.speeds.get(row["trial"]),
            "pareto": row["trial"] in front,
            "candidate": row["trial"] == selection.candidate.number,
        }
        for row in rows
    ]


def outcome(opened: OpenStudy, tracker: StudyTracker, published: Published) -> str:
    """The result, and where to look further.

    Args:
        opened: The study.
        tracker: Of the study.
        published: The registered version.

    Returns:
        The table of errors and the commands.
    """
    lines = [
        "",
        published.table(),
        "",
        published.verdict(),
        "",
        "look further:",
    ]
    lines += [f"  {command}" for command in look_further(opened.stores, opened.name)]
    lines.append("  qm9flow serve    # then: qm9flow predict --smiles CCO")
    if tracker.errors:
        lines.append(f"{tracker.errors} entries could not be logged; the log file says which")
    return "\n".join(lines)


def how_to_continue(opened: OpenStudy) -> str:
    """After an interruption.

    Args:
        opened: The study.

    Returns:
        The commands that go on with it.
    """
    study = named(opened.stores, opened.name)
    return (
        f"stopped; nothing is lost. To go on:\n  qm9flow study resume {study}\n"
        f"or the same `mlflow run` with -P study_name={shlex.quote(opened.name)}"
    )
