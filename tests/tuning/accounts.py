"""What must hold of a study in all of its stores, whatever has happened to it."""

from collections import Counter
from typing import Any

import optuna
from mlflow.entities import Run

from qm9flow.tracking.places import study_place
from qm9flow.tracking.runs import find_runs
from qm9flow.tracking.stores import Stores, connect
from qm9flow.tuning.records import TrialRecord, show_study

STATUS = {"complete": "FINISHED", "pruned": "FINISHED", "failed": "FAILED"}


def runs_of(stores: Stores, name: str = "demo") -> tuple[list[Run], dict[int, Run]]:
    """Parents of a study, and its trials' runs by number; each number has one run."""
    client = connect(stores)
    runs = find_runs(client, study_place(stores, name))
    parents = [run for run in runs if run.data.tags["kind"] == "study"]
    trials = [run for run in runs if run.data.tags["kind"] == "trial"]
    counts = Counter(run.data.tags["trial"] for run in trials)
    assert set(counts.values()) <= {1}, f"trials with several runs: {counts}"
    return parents, {int(run.data.tags["trial"]): run for run in trials}


def files_of(stores: Stores, run_id: str, folder: str | None = None) -> set[str]:
    """Names of a run's artifacts."""
    return {item.path for item in connect(stores).list_artifacts(run_id, folder)}


def check_ended(stores: Stores, n_trials: int, name: str = "demo") -> tuple[TrialRecord, ...]:
    """Hold a study that has ended to everything that was promised.

    Args:
        stores: Where it is.
        n_trials: How many trials it was to have.
        name: Of the study.

    Returns:
        Its trials.
    """
    study = show_study(stores, name)
    assert [trial.number for trial in study.trials] == list(range(n_trials))
    assert all(trial.has_ended for trial in study.trials), study.counts
    parents, runs = runs_of(stores, name)
    assert set(runs) == set(range(n_trials))
    assert not [run.info.run_id for run in parents if run.info.status == "RUNNING"]
    newest = max(parents, key=lambda run: run.info.start_time)
    assert study.parent_run_id == newest.info.run_id
    assert study.holder is None
    for trial in study.trials:
        run = runs[trial.number]
        assert run.info.run_id == trial.run_id
        assert run.info.status == STATUS[trial.state], (trial.number, run.info.status)
        assert run.data.tags["state"] == trial.state
        assert run.data.tags["mlflow.parentRunId"] == newest.info.run_id
        assert run.data.tags.get("reason") == trial.reason
        assert {key: str(value) for key, value in trial.params.items()} == run.data.params
        _check_epochs(stores, trial)
        has_model = "model" in files_of(stores, run.info.run_id)
        assert has_model == (trial.state == "complete")
        if trial.state == "complete":
            assert run.data.metrics["best/val/score"] == trial.score
    left = study_place(stores, name).state
    assert not list((left / "checkpoints").glob("*"))
    assert not list(left.glob("**/*.part"))
    return study.trials


def _check_epochs(stores: Stores, trial: TrialRecord) -> None:
    """Every epoch is there, with all of its metrics, in both stores."""
    client = connect(stores)
    stored = optuna.load_study(study_name="demo", storage=stores.optuna_url)
    told = stored.get_trials(deepcopy=False)[trial.number].intermediate_values
    assert sorted(told) == list(range(1, trial.epochs + 1))
    for metric in ("val/score", "train/loss", "val/gap/mae"):
        history = client.get_metric_history(str(trial.run_id), metric)
        assert sorted({point.step for point in history}) == sorted(told)
    scores = {p.step: p.value for p in client.get_metric_history(str(trial.run_id), "val/score")}
    assert scores == told


def comparable(trials: tuple[TrialRecord, ...]) -> list[dict[str, Any]]:
    """What two runs of the same study must share: all but clocks and runs."""
    names = ("number", "state", "params", "score", "best_epoch", "epochs", "train_loss", "reason")
    return [{name: getattr(trial, name) for name in names} for trial in trials]
