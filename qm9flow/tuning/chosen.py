"""A selection kept with its study: speeds measured again would choose another of tied trials."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from qm9flow.tracking.stores import Stores
from qm9flow.tuning.history import History, find_study, open_storage
from qm9flow.tuning.records import StudyRecord, TrialRecord
from qm9flow.tuning.selection import Final, Selection, with_speeds

NOTE_SELECTION = "selection"


def keep(history: History, selection: Selection, records: tuple[TrialRecord, ...]) -> None:
    """Note what was chosen from which trials.

    Args:
        history: The study.
        selection: What was chosen.
        records: All trials that it was chosen from.

    Raises:
        StudyError: The study's storage does not answer.
    """
    history.note(
        NOTE_SELECTION,
        {
            "trials": _digest(records),
            "candidate": selection.candidate.number,
            "front": [item.number for item in selection.front],
            "standard_error": selection.standard_error,
            "tied": list(selection.tied),
            "finals": [asdict(item) for item in selection.finals],
            "speeds": {str(number): speed for number, speed in selection.speeds.items()},
        },
    )


def find(history: History, records: tuple[TrialRecord, ...]) -> Selection | None:
    """What an earlier start chose from the same trials.

    Args:
        history: The study.
        records: All trials.

    Returns:
        The selection; None if none was noted, or trials have ended since.
    """
    note: dict[str, Any] | None = history.attributes.get(NOTE_SELECTION)
    if note is None or note["trials"] != _digest(records):
        return None
    speeds = {int(number): speed for number, speed in note["speeds"].items()}
    records = with_speeds(records, speeds)
    return Selection(
        candidate=records[note["candidate"]],
        front=tuple(records[number] for number in note["front"]),
        standard_error=note["standard_error"],
        tied=tuple(note["tied"]),
        speeds=speeds,
        finals=tuple(Final(**item) for item in note.get("finals", [])),
    )


def recall(stores: Stores, study: StudyRecord) -> Selection | None:
    """What a study chose, without a right to write to it.

    Args:
        stores: Where it is.
        study: The study with its trials.

    Returns:
        As `find`.

    Raises:
        StudyError: The study's storage does not answer.
    """
    storage = open_storage(stores.optuna_url)
    study_id = find_study(storage, study.name)
    if study_id is None:
        return None
    return find(History(storage, study_id, study.name), study.trials)


def _digest(records: tuple[TrialRecord, ...]) -> str:
    """Of everything that a choice depends on, speeds apart."""
    ended = [(item.number, item.state, item.score) for item in records if item.has_ended]
    return hashlib.sha256(json.dumps(ended).encode()).hexdigest()[:16]
