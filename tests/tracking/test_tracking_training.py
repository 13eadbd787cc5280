import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from qm9flow.tracking import training as training_module
from qm9flow.tracking.runs import fetch_artifact, fetch_gradients
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.tracking.training import TrainingTracker
from qm9flow.training.events import Alarm, EpochEnded, Failed, Finished, Started

MakeEpoch = Callable[..., EpochEnded]
PARAMETERS = {"learning_rate": 1e-3, "model": {"hidden": 64}, "ema_decay": None}


def steps(client: MlflowClient, run_id: str, metric: str) -> list[int]:
    return sorted(item.step for item in client.get_metric_history(run_id, metric))


def finished(epochs: int, make_epoch: MakeEpoch) -> Finished:
    return Finished("max_epochs", epochs, epochs, make_epoch(epochs).metrics, b"w", "healthy")


def names(client: MlflowClient, run_id: str) -> set[str]:
    return {item.path for item in client.list_artifacts(run_id)}


def test_completed_trial_is_all_on_record(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch, tmp_path: Path
) -> None:
    trial = study.open_trial(7, PARAMETERS, {"origin": "enqueued"}, config={"seed": 3})
    trial.log(Started(0, 1234, 100, 20))
    for epoch in (1, 2, 3):
        trial.log(make_epoch(epoch, is_best=epoch < 3))
    trial.log(Finished("max_epochs", 3, 2, make_epoch(2).metrics, b"w", "healthy"))
    trial.save_model(b"weights", {"seed": 3})
    trial.finish("complete")

    run = client.get_run(trial.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "trial-00007"
    assert run.data.params == {
        "learning_rate": "0.001",
        "model.hidden": "64",
        "ema_decay": "none",
    }
    expected = {
        "mlflow.parentRunId": study.parent_run_id,
        "study": study.place.name,
        "key": study.place.key,
        "trial": "7",
        "state": "complete",
        "verdict": "healthy",
        "ending": "max_epochs",
        "origin": "enqueued",
    }
    assert expected.items() <= run.data.tags.items()
    units = json.loads(run.data.tags["units"])
    assert (units["gap"], units["alpha"]) == ("eV", "a0^3")
    assert run.data.metrics["val/gap/mae"] == pytest.approx(0.5 / 3)
    assert run.data.metrics["best/val/gap/mae"] == pytest.approx(0.5 / 2)
    assert run.data.metrics["best_epoch"] == 2
    assert run.data.metrics["model/parameters"] == 1234
    assert steps(client, trial.run_id, "val/score") == [1, 2, 3]
    assert names(client, trial.run_id) == {"config.json", "gradients.npz", "model"}
    model = fetch_artifact(client, trial.run_id, "model", tmp_path)
    assert (model / "weights.safetensors").read_bytes() == b"weights"
    assert json.loads((model / "config.json").read_text()) == {"seed": 3}
    arrays = fetch_gradients(client, trial.run_id)
    assert arrays["epoch"].tolist() == [1, 2, 3]
    assert arrays["histogram"].shape == (3, 4, 32)
    assert arrays["layers"].tolist() == ["embedding", "conv.0", "conv.1", "readout.0"]
    third = make_epoch(3).gradients
    assert third is not None
    np.testing.assert_array_equal(arrays["histogram"][2], third.histogram)
    np.testing.assert_allclose(arrays["zero_share"][2], third.zero_share)
    assert 0 < trial.seconds_spent <= study.seconds_spent
    assert study.errors == 0


def test_git_commit_of_the_checkout_is_recorded(
    study: StudyTracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = client.get_run(study.open_trial(0, {}).run_id).data.tags
    root = Path(training_module.__file__).parents[2]
    if (root / ".git").exists():
        assert len(tags["mlflow.source.git.commit"]) == 40
        assert tags["git_commit"].startswith(tags["mlflow.source.git.commit"])


def test_unhealthy_trial_gets_its_heat_map_and_reason(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    trial = study.open_trial(0, {})
    trial.log(make_epoch(1))
    trial.log(make_epoch(2, is_best=False, verdict="vanishing"))
    alarm = Alarm("exploding", 230, 3, 12.5)
    trial.log(Failed("exploding", "loss is 1e12 in epoch 3", alarm=alarm))
    trial.finish("pruned")
    run = client.get_run(trial.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["state"] == "pruned"
    assert run.data.tags["verdict"] == "exploding"
    assert run.data.tags["reason"] == "exploding"
    assert (run.data.tags["alarm"], run.data.tags["alarm_step"]) == ("exploding", "230")
    assert run.data.tags["message"] == "loss is 1e12 in epoch 3"
    assert run.data.metrics["best_epoch"] == 1
    assert names(client, trial.run_id) == {"gradients.npz", "gradients.png"}


def test_trial_that_dies_before_its_first_epoch(study: StudyTracker, client: MlflowClient) -> None:
    trial = study.open_trial(0, {})
    trial.log(Failed("impossible", "batch size 512 for 100 molecules"))
    trial.finish("failed")
    run = client.get_run(trial.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "impossible"
    assert run.data.tags["verdict"] == "unknown"
    assert names(client, trial.run_id) == set()


def test_metrics_wait_for_the_flush_and_no_longer(
    study: StudyTracker,
    client: MlflowClient,
    make_epoch: MakeEpoch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trial = study.open_trial(0, {})
    trial.log(make_epoch(1))
    assert steps(client, trial.run_id, "val/score") == []
    monkeypatch.setattr(training_module, "FLUSH_SECONDS", 0.0)
    trial.log(make_epoch(2))
    assert steps(client, trial.run_id, "val/score") == [1, 2]
    trial.finish("complete")


def test_more_metrics_than_a_batch_takes(
    study: StudyTracker, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    log_batch = MlflowClient.log_batch

    def counted(self: MlflowClient, run_id: str, **entities: Any) -> Any:
        sizes.append(len(entities.get("metrics", ())))
        return log_batch(self, run_id, **entities)

    trial = study.open_trial(0, {})
    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    for epoch in range(1, 41):
        metrics = {f"val/{index}/mae": float(epoch) for index in range(49)} | {"val/score": 1.0}
        trial.log(EpochEnded(epoch, metrics, None, False))
    trial.finish("complete")
    assert sizes == [900, 900, 200]
    assert steps(client, trial.run_id, "val/score") == list(range(1, 41))


def test_killed_trial_goes_on_without_gap_or_double(
    study: StudyTracker,
    client: MlflowClient,
    make_epoch: MakeEpoch,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = study.open_trial(3, PARAMETERS)
    for epoch in (1, 2):
        first.log(make_epoch(epoch))
    monkeypatch.setattr(training_module, "FLUSH_SECONDS", 0.0)
    first.log(make_epoch(3))
    monkeypatch.setattr(training_module, "FLUSH_SECONDS", 1e9)
    first.log(make_epoch(4, is_best=False))  # neither sent nor in any checkpoint that follows
    spool = study.place.state / "epochs" / "00003.jsonl"
    with spool.open("ab") as file:
        file.write(b'{"epoch": 99, "time_ms": 1, "metr')
    run_id = first.run_id
    del first

    second = study.open_trial(3, PARAMETERS, run_id=run_id)
    second.log(Started(2, 1234, 100, 20))  # the newest checkpoint was of epoch 2
    for epoch in (3, 4, 5):
        second.log(make_epoch(epoch, is_best=epoch != 4))
    second.log(finished(5, make_epoch))
    second.finish("complete")
    assert steps(client, second.run_id, "val/score") == [1, 2, 3, 4, 5]
    assert steps(client, second.run_id, "best/val/score") == [5]
    arrays = fetch_gradients(client, second.run_id)
    assert arrays["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert client.get_run(second.run_id).info.status == "FINISHED"
    assert not spool.exists()


def test_interrupted_trial_is_opened_again(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    first = study.open_trial(1, PARAMETERS)
    first.log(make_epoch(1))
    first.finish("interrupted", "SIGINT")
    assert client.get_run(first.run_id).info.status == "KILLED"
    second = study.open_trial(1, PARAMETERS, run_id=first.run_id)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log(make_epoch(2))
    second.finish("complete")
    assert steps(client, first.run_id, "val/score") == [1, 2]
    assert client.get_run(first.run_id).data.tags["state"] == "complete"
    assert fetch_gradients(client, first.run_id)["epoch"].tolist() == [1, 2]


def test_run_deleted_by_its_user_is_replaced(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    first = study.open_trial(1, PARAMETERS)
    first.log(make_epoch(1))
    client.delete_run(first.run_id)
    second = study.open_trial(1, PARAMETERS, run_id=first.run_id)
    assert second.run_id not in ("", first.run_id)
    second.log(make_epoch(2))
    second.finish("complete")
    assert steps(client, second.run_id, "val/score") == [1, 2]


def test_new_trial_ignores_what_an_old_one_left(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    study.open_trial(1, PARAMETERS).log(make_epoch(5))
    fresh = study.open_trial(1, PARAMETERS)
    fresh.log(make_epoch(1))
    fresh.finish("complete")
    assert steps(client, fresh.run_id, "val/score") == [1]


def test_second_finish_does_nothing(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    trial = study.open_trial(0, {})
    trial.finish("complete")
    trial.finish("failed", "late")
    assert client.get_run(trial.run_id).data.tags["state"] == "complete"


def unavailable(*_args: object, **_entities: object) -> None:
    raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)


def test_busy_store_is_waited_for(
    study: StudyTracker, client: MlflowClient, stores: Stores, make_epoch: MakeEpoch
) -> None:
    trial = study.open_trial(0, {})
    trial.log(make_epoch(1))
    database = stores.tracking_uri.removeprefix("sqlite:///")
    is_locked = threading.Event()

    def hold() -> None:
        with sqlite3.connect(database) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            is_locked.set()
            time.sleep(1.0)

    holder = threading.Thread(target=hold)
    holder.start()
    is_locked.wait()
    trial.finish("complete")
    holder.join()
    assert trial.seconds_spent > 0.5
    assert study.errors == 0
    assert steps(client, trial.run_id, "val/score") == [1]


def test_dead_store_never_fails_a_trial_and_loses_nothing(
    study: StudyTracker,
    client: MlflowClient,
    make_epoch: MakeEpoch,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trial = study.open_trial(0, {})
    with monkeypatch.context() as patched:
        for name in ("log_batch", "set_terminated"):
            patched.setattr(MlflowClient, name, unavailable)
        patched.setattr(LocalArtifactRepository, "log_artifacts", unavailable)
        start = time.monotonic()
        with caplog.at_level(logging.WARNING):
            trial.log(make_epoch(1))
            trial.save_model(b"w", {})
            trial.finish("complete")
        assert 0.5 < time.monotonic() - start < 3.0  # patience is spent once, not per call
    assert study.errors == 5  # the model is tried once more at the end
    assert "database is locked" in caplog.text
    assert client.get_run(trial.run_id).info.status == "RUNNING"

    study.settle(trial.run_id, "complete")
    run = client.get_run(trial.run_id)
    assert run.info.status == "FINISHED"
    assert steps(client, trial.run_id, "val/score") == [1]
    assert run.data.metrics["best_epoch"] == 1
    assert names(client, trial.run_id) == {"gradients.npz", "model"}


def test_trial_without_a_run_still_writes_tensorboard(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "create_run", unavailable)
    trial = study.open_trial(0, PARAMETERS)
    assert trial.run_id == ""
    trial.log(make_epoch(1))
    trial.save_model(b"w", {})
    trial.set_tags({"a": 1})
    trial.finish("complete")
    assert study.errors == 1
    folder = study.place.tensorboard / "00000"
    assert len(list(folder.iterdir())) == 1


def test_full_disk_keeps_the_epoch_for_the_next_write(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = study.open_trial(0, {})

    def full(*_args: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        trial.log(make_epoch(1))
    trial.log(make_epoch(2))
    spool = study.place.state / "epochs" / "00000.jsonl"
    assert [json.loads(line)["epoch"] for line in spool.read_text().splitlines()] == [1, 2]
    trial.finish("complete")


def test_model_can_be_deleted(study: StudyTracker, client: MlflowClient) -> None:
    trial = study.open_trial(0, {})
    trial.save_model(b"w", {})
    other = study.open_trial(1, {})
    other.save_model(b"w", {})
    trial.finish("complete")
    trial.delete_model()
    study.delete_model(other.run_id)
    study.delete_model(other.run_id)
    assert names(client, trial.run_id) == names(client, other.run_id) == set()
    assert study.errors == 0


def test_heat_map_of_a_healthy_trial_on_request(
    study: StudyTracker, client: MlflowClient, make_epoch: MakeEpoch
) -> None:
    trial: TrainingTracker = study.open_trial(0, {})
    trial.log(make_epoch(1))
    trial.finish("complete")
    assert "gradients.png" not in names(client, trial.run_id)
    assert study.log_heat_map(trial.run_id, 0)
    assert "gradients.png" in names(client, trial.run_id)
    empty = study.open_trial(1, {})
    empty.finish("complete")
    assert not study.log_heat_map(empty.run_id, 1)
