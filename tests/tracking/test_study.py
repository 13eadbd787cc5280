import csv
import io
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from qm9flow.errors import TrackingError
from qm9flow.tracking import runs, tables
from qm9flow.tracking.places import study_place
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded, Finished

MakeEpoch = Callable[..., EpochEnded]


def reopened(stores: Stores, study: StudyTracker, previous: str | None = None) -> StudyTracker:
    """The study as its next start opens it."""
    return StudyTracker.open(
        stores, study.place.name, {"n_trials": 6}, previous_parent=previous or study.parent_run_id
    )


def test_parent_run_says_what_the_study_is(study: StudyTracker, client: MlflowClient) -> None:
    run = client.get_run(study.parent_run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == study.place.name
    assert run.data.params == {
        "cfg.n_trials": "3",
        "cfg.model.hidden": "8",
        "cfg.model.radial": "none",
    }
    assert run.data.tags["kind"] == "study"
    assert json.loads(run.data.tags["units"])["cv"] == "cal/(mol K)"
    assert run.data.tags["version.mlflow"]
    assert int(run.data.tags["hardware.cores"]) >= 1


def test_configuration_comes_back(study: StudyTracker, stores: Stores) -> None:
    config = runs.fetch_config(stores, study.parent_run_id)
    assert config == {"n_trials": 3, "model": {"hidden": 8, "radial": None}}
    with pytest.raises(TrackingError, match="no run id"):
        runs.fetch_config(stores, "trial-00007")
    with pytest.raises(TrackingError, match="cannot fetch"):
        runs.fetch_config(stores, "0" * 32)


def test_run_of_mlflow_run_becomes_the_parent(
    stores: Stores, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment("of the project")
    tags = {"mlflow.source.type": "PROJECT", "mlflow.source.name": "/somewhere"}
    made = client.create_run(experiment, tags=tags).info.run_id
    client.log_param(made, "n_trials", "'3'")
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    study = StudyTracker.open(stores, "by project", {"n_trials": 3})
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    trial = study.open_trial(0, {})
    assert study.parent_run_id == made
    assert study.errors == 0
    run = client.get_run(made)
    assert run.data.params == {"n_trials": "'3'", "cfg.n_trials": "3"}
    assert tags.items() <= run.data.tags.items()
    assert client.get_run(trial.run_id).info.experiment_id == experiment
    trial.finish("complete")
    study.finish("FINISHED")


def test_variable_of_mlflow_run_is_taken_away(
    stores: Stores, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    StudyTracker.open(stores, "popped", {}).finish("FINISHED")
    assert "MLFLOW_RUN_ID" not in os.environ


def test_unknown_run_is_refused(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "1" * 32)
    with pytest.raises(TrackingError, match="1" * 32):
        StudyTracker.open(stores, "lost", {})


def test_resumed_study_takes_its_trials_along(
    study: StudyTracker,
    stores: Stores,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    children = {study.open_trial(number, {}).run_id for number in range(5)}
    second = reopened(stores, study)
    assert {run.info.run_id for run in runs.find_children(client, second.parent_run_id)} == children
    assert runs.find_children(client, study.parent_run_id) == []
    old = client.get_run(study.parent_run_id)
    assert old.info.status == "KILLED"
    assert old.data.tags["superseded_by"] == second.parent_run_id
    assert client.get_run(second.parent_run_id).data.params["cfg.n_trials"] == "6"
    second.finish("FINISHED")


def test_finished_study_that_is_extended_keeps_its_status(
    study: StudyTracker, stores: Stores, client: MlflowClient
) -> None:
    study.open_trial(0, {}).finish("complete")
    study.finish("FINISHED")
    second = reopened(stores, study)
    assert client.get_run(study.parent_run_id).info.status == "FINISHED"
    assert len(runs.find_children(client, second.parent_run_id)) == 1
    second.finish("FINISHED")


@pytest.mark.parametrize("is_named", [True, False])
def test_start_killed_while_it_moved_trials(
    study: StudyTracker,
    stores: Stores,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    is_named: bool,
) -> None:
    """The third start finds trials under both, whichever parent the study names."""
    children = {study.open_trial(number, {}).run_id for number in range(4)}
    moved: list[str] = []
    set_tag = MlflowClient.set_tag

    def killed_after_two(self: MlflowClient, run_id: str, key: str, value: str) -> None:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(run_id)
        set_tag(self, run_id, key, value)

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "set_tag", killed_after_two)
        with pytest.raises(KeyboardInterrupt):
            reopened(stores, study)
    (second,) = {client.get_run(run).data.tags["mlflow.parentRunId"] for run in moved}
    third = reopened(stores, study, second if is_named else study.parent_run_id)
    assert {run.info.run_id for run in runs.find_children(client, third.parent_run_id)} == children
    assert client.get_run(second).info.status == "KILLED"
    assert client.get_run(study.parent_run_id).info.status == "KILLED"
    third.finish("FINISHED")


def test_start_killed_before_the_study_knew_of_it_is_ended(
    study: StudyTracker, stores: Stores, client: MlflowClient
) -> None:
    other = StudyTracker.open(stores, f"{study.place.name} too", {})
    again = StudyTracker.open(stores, study.place.name, {})
    assert client.get_run(study.parent_run_id).info.status == "KILLED"
    assert client.get_run(other.parent_run_id).info.status == "RUNNING"
    other.finish("FINISHED")
    again.finish("FINISHED")


@pytest.mark.parametrize("name", ["mine", "two words"])
def test_a_run_killed_before_qm9flow_began_is_ended(
    stores: Stores, client: MlflowClient, name: str
) -> None:
    def made(study_name: str) -> str:
        run = client.create_run("0", tags={"mlflow.project.entryPoint": "main"}).info.run_id
        client.log_param(run, "study_name", shlex.quote(study_name))
        return str(run)

    of_it, of_another = made(name), made(f"{name} too")
    study = StudyTracker.open(stores, name, {})
    assert client.get_run(of_it).info.status == "KILLED"
    assert client.get_run(of_another).info.status == "RUNNING"
    study.finish("FINISHED")


def test_a_training_by_itself_is_apart_from_a_study_of_its_name(
    stores: Stores, client: MlflowClient
) -> None:
    training = StudyTracker.open(stores, "twins", {}, kind="training")
    study = StudyTracker.open(stores, "twins", {})
    assert client.get_run(training.parent_run_id).data.tags["training"] == "twins"
    again = StudyTracker.open(stores, "twins", {}, kind="training")
    assert client.get_run(training.parent_run_id).info.status == "KILLED"
    assert runs.delete_study_runs(stores, "twins") == 1
    assert client.get_run(again.parent_run_id).info.lifecycle_stage == "active"
    for tracker in (study, again):
        tracker.finish("FINISHED")


def test_every_start_gets_all_epochs_of_a_training(
    stores: Stores, client: MlflowClient, make_epoch: MakeEpoch, tmp_path: Path
) -> None:
    """The run of the first start is lost to a kill before anything was sent."""
    spool = tmp_path / "epochs.jsonl"
    first = StudyTracker.open(stores, "final", {})
    training = first.open_training({"hidden": 8}, spool, name="final training", folder="final")
    for epoch in (1, 2):
        training.log(make_epoch(epoch))
    second = StudyTracker.open(stores, "final", {}, previous_parent=first.parent_run_id)
    training = second.open_training({"hidden": 8}, spool, name="final training", folder="final")
    training.log(make_epoch(3))
    end = Finished("max_epochs", 3, 3, make_epoch(3).metrics, b"", "healthy")
    training.log(end)
    training.finish("complete")
    for tracker in (
        second,
        StudyTracker.open(stores, "final", {}, previous_parent=second.parent_run_id),
    ):
        if tracker is not second:  # the training had ended; only its end is told
            training = tracker.open_training({}, spool, name="final training", folder="final")
            training.log(end)
            training.finish("complete")
        run = client.get_run(tracker.parent_run_id)
        history = client.get_metric_history(run.info.run_id, "final/val/score")
        assert [point.step for point in history] == [1, 2, 3]
        assert run.data.metrics["final/best/val/score"] == make_epoch(3).metrics["val/score"]
        assert run.data.tags["verdict"] == "healthy"
        assert run.data.tags["state"] == ("interrupted" if tracker is second else "running")
        assert {item.path for item in client.list_artifacts(run.info.run_id, "final")} == {
            "final/gradients.npz"
        }
        tracker.finish("FINISHED")
    assert list((second.place.tensorboard / "final").glob("*tfevents*"))


def test_runs_left_running_are_settled(
    study: StudyTracker, stores: Stores, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    left = study.open_trial(4, {"hidden": 2})
    left.log(make_epoch(1))
    done = study.open_trial(5, {})
    done.finish("complete")
    second = reopened(stores, study)
    assert client.get_run(left.run_id).info.status == "RUNNING"
    second.settle(left.run_id, "failed", "lost", "its worker is gone")
    second.settle(done.run_id, "failed", "lost")
    second.settle("2" * 32, "failed", "lost")
    run = client.get_run(left.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "lost"
    assert run.data.tags["message"] == "its worker is gone"
    assert run.data.metrics["best/val/score"] == 1.0
    assert client.get_run(done.run_id).data.tags["state"] == "complete"
    second.finish("FINISHED")


def test_finish_is_done_once(study: StudyTracker, client: MlflowClient) -> None:
    study.log_progress({"complete": 2}, 0.5)
    study.finish("KILLED")
    study.finish("FINISHED")
    run = client.get_run(study.parent_run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["state"] == "interrupted"
    assert run.data.tags["tracking_errors"] == "0"
    assert run.data.metrics["study/complete"] == 2


def test_data_is_an_input_of_study_and_trials(study: StudyTracker, client: MlflowClient) -> None:
    study.log_dataset(
        digest="d" * 64,
        molecules=130831,
        split="seed",
        split_digest="e" * 64,
        sizes={"train": 8000, "validation": 2000},
    )
    trial = study.open_trial(0, {})
    for run_id in (study.parent_run_id, trial.run_id):
        (found,) = client.get_run(run_id).inputs.dataset_inputs
        assert found.dataset.name == "QM9"
        assert found.dataset.digest == "d" * 36
        assert json.loads(found.dataset.profile)["digest"] == "d" * 64
        tags = {tag.key: tag.value for tag in found.tags}
        assert tags["split"] == "seed"
        assert tags["split_digest"] == "e" * 64
        assert tags["molecules_train"] == "8000"


def test_figures_of_the_study(study: StudyTracker, client: MlflowClient, tmp_path: Path) -> None:
    study.log_progress({"complete": 1, "pruned": 0, "failed": 0}, None)
    study.log_progress({"complete": 1, "pruned": 1, "failed": 0}, 0.25)
    assert "study/complete" not in client.get_run(study.parent_run_id).data.metrics
    study.log_metrics({"candidate/trial": 3.0})
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "history.html").write_text("<html>")
    study.log_artifact(tmp_path / "plots")
    study.log_artifact(tmp_path / "plots" / "history.html", "again")
    metrics = client.get_run(study.parent_run_id).data.metrics
    assert metrics["study/pruned"] == 1
    assert metrics["study/best_score"] == 0.25
    assert metrics["candidate/trial"] == 3
    assert [m.step for m in client.get_metric_history(study.parent_run_id, "study/complete")] == [
        1,
        2,
    ]
    paths = {item.path for item in client.list_artifacts(study.parent_run_id)}
    assert {"plots", "again", "config.json"} <= paths


ROWS = [
    {"trial": 3, "val/score": 0.123456789, "state": "complete", "note": "a|b"},
    {"trial": 10, "val/score": float("nan"), "state": "failed", "note": None},
]


def test_tables_open_in_mlflows_view(
    study: StudyTracker, client: MlflowClient, tmp_path: Path
) -> None:
    study.log_table(ROWS[:1], "leaderboard")
    study.log_table(ROWS, "leaderboard")
    study.log_table(ROWS, "other")
    path = runs.fetch_artifact(client, study.parent_run_id, "leaderboard.json", tmp_path)
    assert pd.read_json(path, orient="split")["trial"].tolist() == [3, 10]  # as MLflow reads it
    listed = json.loads(client.get_run(study.parent_run_id).data.tags["mlflow.loggedArtifacts"])
    assert listed == [
        {"path": "leaderboard.json", "type": "table"},
        {"path": "other.json", "type": "table"},
    ]


def test_tables_as_text() -> None:
    assert json.loads(tables.to_mlflow(ROWS))["data"][1] == [10, None, "failed", None]
    read = list(csv.DictReader(io.StringIO(tables.to_csv(ROWS))))
    assert read[0]["val/score"] == "0.123456789"
    assert tables.to_markdown(ROWS).splitlines() == [
        "| trial | val/score | state    | note |",
        "|------:|----------:|----------|------|",
        "|     3 |    0.1235 | complete | a\\|b |",
        "|    10 |       nan | failed   |      |",
    ]
    assert tables.to_csv([]) == ""
    assert json.loads(tables.to_mlflow([])) == {"columns": [], "data": []}


@pytest.mark.parametrize("name", ["plain", "it's one", 'a "quoted" one'])
def test_deleted_study_is_gone(stores: Stores, client: MlflowClient, name: str) -> None:
    study = StudyTracker.open(stores, name, {})
    trial = study.open_trial(0, {})
    other = StudyTracker.open(stores, f"{name} 2", {})
    assert study_place(stores, name).tensorboard.is_dir()
    assert runs.delete_study_runs(stores, name) == 2
    assert client.get_run(trial.run_id).info.lifecycle_stage == "deleted"
    assert client.get_run(other.parent_run_id).info.lifecycle_stage == "active"
    assert not study_place(stores, name).tensorboard.exists()
    assert runs.delete_study_runs(stores, name) == 0
    other.finish("FINISHED")


def test_a_trial_trained_further_goes_on_in_its_own_run(
    study: StudyTracker,
    stores: Stores,
    client: MlflowClient,
    make_epoch: MakeEpoch,
    tmp_path: Path,
) -> None:
    spool = tmp_path / "trial-00003-2-minutes" / "epochs.jsonl"
    first = study.open_final(3, spool, {"hidden": 8}, {"minutes": 2}, config={"seed": 1})
    first.log(make_epoch(1))
    second = reopened(stores, study)  # the first start was killed
    run = client.get_run(first.run_id)
    assert run.info.run_name == "final-trial-00003-2-minutes"
    assert run.info.status == "KILLED"
    assert run.data.tags["mlflow.parentRunId"] == second.parent_run_id
    assert {"kind": "final", "trial": "3", "minutes": "2"}.items() <= run.data.tags.items()
    assert second.find_finals() == {"trial-00003-2-minutes": first.run_id}
    again = second.open_final(3, spool, {"hidden": 8}, run_id=first.run_id)
    again.log(make_epoch(2))
    again.finish("complete")
    assert again.run_id == first.run_id
    assert client.get_run(again.run_id).info.status == "FINISHED"
    assert not spool.exists()
    history = client.get_metric_history(again.run_id, "val/score")
    assert [point.step for point in history] == [1, 2]
    second.finish("FINISHED")
