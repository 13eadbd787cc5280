"""Studies and trials as plain values; list, show, delete. Needs no torch."""

import math
import shutil
from collections import Counter
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from qm9flow.config import StudyConfig, from_dict
from qm9flow.errors import ConfigError, StudyError
from qm9flow.locations import without_password
from qm9flow.tracking.places import study_place
from qm9flow.tracking.runs import delete_study_runs
from qm9flow.tracking.stores import Stores, sqlite_path
from qm9flow.tuning.history import History, find_study, open_storage, readable
from qm9flow.tuning.lease import Lease
from qm9flow.tuning.locks import Holder, parse_holder

State = Literal["complete", "pruned", "failed", "running", "waiting"]

STATES: dict[int, State] = {
    optuna.trial.TrialState.COMPLETE: "complete",
    optuna.trial.TrialState.PRUNED: "pruned",
    optuna.trial.TrialState.FAIL: "failed",
    optuna.trial.TrialState.RUNNING: "running",
    optuna.trial.TrialState.WAITING: "waiting",
}

NOTE_CONFIG = "config"
NOTE_IDENTITY = "identity"
NOTE_LEASE = "lease"
NOTE_PARENT = "parent_run_id"
NOTE_DROPPED = "dropped_models"

ATTRIBUTE_RUN = "run_id"
ATTRIBUTE_OUTCOME = "outcome"
ATTRIBUTE_RETRIES = "retries"
ATTRIBUTE_STARTS = "starts"


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Counted from 0.
        state: `complete`, `pruned`, `failed`, or not ended yet.
        params: The point that was tried.
        score: Lowest `val/score`, None if it has none.
        best_epoch: Epoch of that score.
        epochs: Epochs done.
        train_loss: Training loss at the best epoch.
        molecules_per_second: Training speed at the best epoch, beside whatever else ran.
        seconds: Wall time, over all starts.
        parameters: Trainable numbers of the network.
        verdict: What the gradients said.
        reason: Why it did not complete: `halving`, `vanishing`, `dead_relu`, `exploding`, `dead`,
            `out_of_memory`, `crash`, `impossible`.
        message: The same in words.
        alarm: The verdict on its gradients that first gave a reason to stop it, None if none did.
        alarm_step: Optimiser steps done by then.
        alarm_seconds: Training time until then.
        run_id: MLflow's run.
    """

    number: int
    state: State
    params: dict[str, Any]
    score: float | None = None
    best_epoch: int | None = None
    epochs: int = 0
    train_loss: float | None = None
    molecules_per_second: float | None = None
    seconds: float | None = None
    parameters: int | None = None
    verdict: str | None = None
    reason: str | None = None
    message: str | None = None
    alarm: str | None = None
    alarm_step: int | None = None
    alarm_seconds: float | None = None
    run_id: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the trial counts towards `n_trials`."""
        return self.state in ("complete", "pruned", "failed")


_OF_OUTCOME = {item.name for item in fields(TrialRecord)} - {"number", "state", "params", "run_id"}


def to_record(trial: FrozenTrial) -> TrialRecord:
    """A trial as plain values.

    Args:
        trial: As Optuna holds it.

    Returns:
        The record; of trials that other programs added it has what there is.
    """
    scores = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    values: dict[str, Any] = {
        "score": trial.values[0] if trial.values else min(scores, default=None),
        "epochs": max(trial.intermediate_values, default=0),
    }
    outcome = trial.user_attrs.get(ATTRIBUTE_OUTCOME, {})
    values |= {key: value for key, value in outcome.items() if key in _OF_OUTCOME}
    return TrialRecord(
        number=trial.number,
        state=STATES[trial.state],
        params=dict(trial.params),
        run_id=trial.user_attrs.get(ATTRIBUTE_RUN) or None,
        **values,
    )


@dataclass(frozen=True)
class StudyRecord:
    """One study.

    Attributes:
        name: Its name.
        config: As it was last started.
        parent_run_id: MLflow's run of the last start.
        counts: Trials by state.
        best: Lowest score of a completed trial, None if there is none.
        started: When its first trial started.
        changed: When a trial last started or ended.
        holder: Who runs it at the moment, None if nobody does.
        trials: All of them, by number; empty in lists.
    """

    name: str
    config: StudyConfig
    parent_run_id: str | None
    counts: dict[str, int]
    best: TrialRecord | None
    started: datetime | None
    changed: datetime | None
    holder: Holder | None
    trials: tuple[TrialRecord, ...] = ()


def best_of(trials: tuple[TrialRecord, ...]) -> TrialRecord | None:
    """The completed trial with the lowest score.

    Args:
        trials: All trials.

    Returns:
        The first such trial, None if none has completed.
    """
    complete = [trial for trial in trials if trial.state == "complete" and trial.score is not None]
    return min(complete, key=lambda trial: trial.score or 0.0, default=None)


def _read(storage: BaseStorage, study_id: int, name: str) -> StudyRecord:
    notes = storage.get_study_user_attrs(study_id)
    trials = storage.get_all_trials(study_id, deepcopy=False)
    records = tuple(to_record(trial) for trial in sorted(trials, key=lambda item: item.number))
    times = [trial.datetime_start for trial in trials] + [
        trial.datetime_complete for trial in trials
    ]
    known = [time for time in times if time is not None]
    holder = parse_holder(notes.get(NOTE_LEASE))
    return StudyRecord(
        name=name,
        config=_config(notes.get(NOTE_CONFIG, {})),
        parent_run_id=notes.get(NOTE_PARENT),
        counts=dict(Counter(record.state for record in records)),
        best=best_of(records),
        started=min(known, default=None),
        changed=max(known, default=None),
        holder=holder if holder is not None and holder.is_alive else None,
        trials=records,
    )


def _config(values: dict[str, Any]) -> StudyConfig:
    """Options that this version no longer has, or has not yet, do not hide a study."""
    known = {item.name for item in fields(StudyConfig)}
    try:
        return from_dict(StudyConfig, {key: v for key, v in values.items() if key in known})
    except ConfigError as error:
        raise StudyError(f"the study's configuration cannot be read: {error}") from error


def existing_storage(url: str) -> BaseStorage | None:
    """The storage, if somebody has made it: looking must not create a database.

    Args:
        url: A database URL.

    Returns:
        The storage; None if it is a file that is not there.

    Raises:
        StudyError: It cannot be opened.
    """
    path = sqlite_path(url)
    return None if path is not None and not path.exists() else open_storage(url)


def list_studies(stores: Stores) -> tuple[StudyRecord, ...]:
    """All studies of a storage, the one that changed last first, without their trials.

    Args:
        stores: Where to look.

    Returns:
        The studies; those that other programs made are left out.

    Raises:
        StudyError: The storage cannot be opened.
    """
    storage = existing_storage(stores.optuna_url)
    if storage is None:
        return ()
    with readable(stores.optuna_url):
        found = [
            _read(storage, study._study_id, study.study_name)
            for study in storage.get_all_studies()
            if NOTE_IDENTITY in study.user_attrs
        ]
    found.sort(key=lambda study: study.changed or datetime.min, reverse=True)
    return tuple(_without_trials(study) for study in found)


def _without_trials(study: StudyRecord) -> StudyRecord:
    values = {item.name: getattr(study, item.name) for item in fields(study)}
    return StudyRecord(**{**values, "trials": ()})


def locate_study(stores: Stores, name: str) -> tuple[BaseStorage, int]:
    """Find a study in its storage.

    Args:
        stores: Where to look.
        name: Of the study.

    Returns:
        The storage, and Optuna's id of the study there.

    Raises:
        StudyError: There is none of that name.
    """
    storage = existing_storage(stores.optuna_url)
    with readable(stores.optuna_url):
        study_id = None if storage is None else find_study(storage, name)
        studies = [] if storage is None else storage.get_all_studies()
    if storage is None or study_id is None:
        names = sorted(study.study_name for study in studies)
        known = f"; there are {', '.join(names)}" if names else "; there are none"
        raise StudyError(f"no study {name!r} in {without_password(stores.optuna_url)}{known}")
    return storage, study_id


def show_study(stores: Stores, name: str) -> StudyRecord:
    """One study with all of its trials.

    Args:
        stores: Where to look.
        name: Of the study.

    Returns:
        The study.

    Raises:
        StudyError: There is none of that name.
    """
    storage, study_id = locate_study(stores, name)
    with readable(stores.optuna_url):
        return _read(storage, study_id, name)


def study_lease(stores: Stores, history: History) -> Lease:
    """The right to write to a study; a context manager.

    Args:
        stores: Where the study keeps its state.
        history: The study.

    Returns:
        The lease, not yet taken.
    """
    return Lease(
        history.name,
        study_place(stores, history.name).state / "lease",
        read=lambda: history.look_up(NOTE_LEASE),
        write=lambda note: history.note_at_once(NOTE_LEASE, note),
    )


def delete_study(stores: Stores, name: str) -> tuple[int, int]:
    """Delete a study: its runs, TensorBoard files, checkpoints, and last its trials.

    In this order a deletion that is cut off can be repeated.

    Args:
        stores: Where it is.
        name: Of the study.

    Returns:
        How many trials and how many runs it had.

    Raises:
        StudyError: There is none of that name.
        StudyBusyError: It is running.
        TrackingError: MLflow's store cannot be reached.
    """
    storage, study_id = locate_study(stores, name)
    with study_lease(stores, History(storage, study_id, name)):
        trials = storage.get_n_trials(study_id)
        runs = delete_study_runs(stores, name)
        storage.delete_study(study_id)
        shutil.rmtree(study_place(stores, name).state, ignore_errors=True)
    return trials, runs
