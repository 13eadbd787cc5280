"""Studies as tables: which there are, what one holds; and how one goes."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qm9flow import config
from qm9flow.evaluation.text_tables import counted
from qm9flow.tracking.places import study_place
from qm9flow.tracking.stores import resolve_stores
from qm9flow.tuning import chosen, records
from qm9flow.tuning.records import StudyRecord
from qm9flow.tuning.selection import Final, by_score
from qm9flow.workflows import finals_books
from qm9flow.workflows.report import finals_lines, settings
from qm9flow.workflows.study import FINAL
from qm9flow.workflows.trained import EPOCHS, RECORD

_TRAINING = re.compile(r"trial-(\d+)-([\d_e+-]+)-minutes")
"""A folder as `final_training.final_name` calls it."""


def list_studies(storage: str | None) -> list[dict[str, Any]]:
    """All studies of a storage.

    Args:
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.

    Returns:
        A row each, plain JSON values.

    Raises:
        StudyError: The storage cannot be read.
    """
    return [_row(item) for item in records.list_studies(resolve_stores(storage))]


def _row(study: StudyRecord) -> dict[str, Any]:
    return {
        "study": study.name,
        "n_trials": study.config.n_trials,
        "states": dict(study.counts),
        "best_score": study.best.score if study.best else None,
        "started": study.started.isoformat() if study.started else None,
        "changed": study.changed.isoformat() if study.changed else None,
        "running_on": study.holder.host if study.holder else None,
        "parent_run_id": study.parent_run_id,
    }


def show_study(name: str, storage: str | None, top: int) -> dict[str, Any]:
    """One study: options and best trials.

    Args:
        name: The study.
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.
        top: Trials to show.

    Returns:
        Plain JSON values; `trials` holds the best completed ones, then the others; `candidate` is
        the trial that was chosen, if one was, and `finals` how trials did that were trained further
        to choose it; `unfinished` holds the trainings on the whole split that were begun on this
        machine and have not ended.

    Raises:
        StudyError: There is no such study.
    """
    stores = resolve_stores(storage)
    study = records.show_study(stores, name)
    selection = chosen.recall(stores, study)
    ranked = by_score(study.trials)
    others = [item for item in study.trials if item.state != "complete"]
    return {
        **_row(study),
        "config": config.to_dict(study.config),
        "trials": [asdict(item) for item in [*ranked, *others][:top]],
        "candidate": selection.candidate.number if selection else None,
        "finals": [asdict(item) for item in selection.finals] if selection else [],
        "unfinished": unfinished(study_place(stores, name).state),
    }


def unfinished(state: Path) -> list[dict[str, Any]]:
    """Trainings on the whole split that were begun and have not ended.

    Args:
        state: The folder of a study's state.

    Returns:
        Kind (`finals` or `final training`), trial, minutes and epochs done of each.
    """
    places = (
        ("finals", finals_books.FOLDER, finals_books.RESULT),
        ("final training", FINAL, RECORD),
    )
    return [
        {
            "kind": kind,
            "trial": int(named[1]),
            "minutes": float(named[2].replace("_", ".")),
            "epochs": _epochs(path / EPOCHS),
        }
        for kind, folder, record in places
        for path in sorted((state / folder).glob("*"))
        if (named := _TRAINING.fullmatch(path.name)) and not (path / record).exists()
    ]


def _epochs(path: Path) -> int:
    try:
        return len(path.read_text().splitlines())
    except OSError:
        return 0  # the first one has not ended


def studies_text(rows: list[dict[str, Any]]) -> str:
    """A table of studies for people.

    Args:
        rows: From `list_studies`.

    Returns:
        Aligned lines.
    """
    if not rows:
        return "no study yet; `make study` or `qm9flow study run` makes one"
    width = max(len(row["study"]) for row in rows)
    lines = [f"{'study':{width}}  best score  trials"]
    for row in rows:
        best = "" if row["best_score"] is None else f"{row['best_score']:.4f}"
        states = ", ".join(f"{count} {state}" for state, count in sorted(row["states"].items()))
        lines.append(f"{row['study']:{width}}  {best:>10}  {states} of {row['n_trials']}")
    return "\n".join(lines)


def study_text(shown: dict[str, Any]) -> str:
    """One study for people.

    Args:
        shown: From `show_study`.

    Returns:
        Aligned lines.
    """
    lines = [studies_text([shown]), "", "trial  state     score  settings"]
    for item in shown["trials"]:
        score = "" if item["score"] is None else f"{item['score']:.4f}"
        why = f"  ({item['reason']})" if item["reason"] else ""
        lines.append(
            f"{item['number']:5d}  {item['state']:8}  {score:>6}  {settings(item['params'])}{why}"
        )
    if shown["finals"]:
        finals = [Final(**item) for item in shown["finals"]]
        lines += ["", *finals_lines(finals, shown["candidate"])]
    elif shown["candidate"] is not None:
        has_finals = min(shown["config"]["finalists"], sum(shown["states"].values())) > 1
        to_come = ", unless finals choose another" if has_finals else ""
        lines += ["", f"candidate: trial {shown['candidate']}{to_come}"]
    lines += [
        f"not ended: {item['kind']}, trial {item['trial']}, {item['minutes']:g} min, "
        f"{counted(item['epochs'], 'epoch')} done"
        for item in shown["unfinished"]
    ]
    return "\n".join(lines)


def delete_study(name: str, storage: str | None) -> str:
    """Delete a study: trials, runs, checkpoints, TensorBoard files. Registered versions stay.

    Args:
        name: The study.
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`.

    Returns:
        What was deleted, in words.

    Raises:
        StudyError: There is no such study, or a coordinator runs it.
    """
    trials, runs = records.delete_study(resolve_stores(storage), name)
    return f"deleted study {name}: {trials} trials, {runs} runs"
