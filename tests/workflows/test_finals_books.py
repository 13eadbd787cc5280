"""The trainings of finals in all stores, whatever happens to them or to a store."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import put_database, stores_at
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from qm9flow.config import StudyConfig
from qm9flow.errors import StudyBusyError
from qm9flow.tracking.stores import Stores, connect
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import (
    CheckpointReady,
    EpochEnded,
    Failed,
    Finished,
    GradientSummary,
    Started,
)
from qm9flow.tuning.records import NOTE_PARENT, TrialRecord
from qm9flow.tuning.spaces import get_space
from qm9flow.tuning.study import open_study
from qm9flow.workflows import finals_books
from qm9flow.workflows.console import Stopped
from qm9flow.workflows.finals_books import RESULT, FinalsBooks
from qm9flow.workflows.trained import CHECKPOINT, EPOCHS

CONFIG = StudyConfig(finalists=2, final_minutes=0.9)
TRIAL = TrialRecord(0, "complete", dict(get_space("seed").first or {}), 0.5)
FOLDER = "trial-00000-0_06-minutes"


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stores:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(finals_books, "PAUSE_SECONDS", 0.01)
    put_database(tmp_path)
    return stores_at(tmp_path)


@contextmanager
def start(stores: Stores, looks: int = 0) -> Iterator[FinalsBooks]:
    """One start of a study that holds finals, killed at the end of the block.

    While a store is away it is looked for so many times; then somebody stops the study.
    """
    left = iter(range(looks))
    with open_study(stores, "demo", CONFIG, "digest") as opened:
        tracker = StudyTracker.open(
            stores, "demo", {}, previous_parent=opened.previous_parent, patience_seconds=0.1
        )
        opened.history.note(NOTE_PARENT, tracker.parent_run_id)
        yield FinalsBooks(opened, tracker, 0.06, lambda: next(left, None) is None)


class Away:
    """MLflow's store does not answer, for ever or so many calls of `get_run`."""

    CALLS = ("create_run", "get_run", "log_batch", "log_inputs", "set_terminated", "update_run")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._kept = {name: getattr(MlflowClient, name) for name in self.CALLS}

    def go(self, looks: int = 10**6) -> None:
        left = iter(range(looks))

        def refuse(*_: Any, **__: Any) -> None:
            raise MlflowException("the store is away")

        def look(client: MlflowClient, run_id: str) -> Run:
            if next(left, None) is not None:
                refuse()
            self.come()
            return client.get_run(run_id)

        for name in self.CALLS:
            self._patch.setattr(MlflowClient, name, look if name == "get_run" else refuse)

    def come(self) -> None:
        for name, call in self._kept.items():
            self._patch.setattr(MlflowClient, name, call)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


def follow(books: FinalsBooks, *epochs: int) -> None:
    for number in epochs:
        ones = np.ones(1)
        histogram = np.ones((1, 32), dtype=np.int64)
        gradients = GradientSummary(("a",), ones, ones, 0 * ones, histogram, 3, "healthy")
        books.take(0, EpochEnded(number, {"val/score": 1 / number}, gradients, True))
        books.take(0, CheckpointReady(number, b"after %d" % number))


def end(books: FinalsBooks, epochs: int) -> None:
    best = {"val/score": 1 / epochs}
    books.take(0, Finished("max_minutes", epochs, epochs, best, b"weights", "healthy"))


def begin(books: FinalsBooks) -> bytes | None:
    job = books.job(TRIAL)
    assert job is not None
    books.begin(0)
    return job.checkpoint


def check(stores: Stores, epochs: int) -> None:
    """One run that has everything, one result, nothing left over."""
    client = connect(stores)
    (run,) = client.search_runs(["0"], filter_string="tags.kind = 'final'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["state"] == "complete"
    assert run.data.metrics["best/val/score"] == 1 / epochs
    history = client.get_metric_history(run.info.run_id, "val/score")
    assert [point.step for point in history] == list(range(1, epochs + 1))
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"config.json", "gradients.npz", "model"}
    folder = stores.state_dir / "demo" / "finals" / FOLDER
    assert {path.name for path in folder.iterdir()} == {"config.json", RESULT}
    result = json.loads((folder / RESULT).read_text())
    assert result["score"] == 1 / epochs
    assert result["run_id"] == run.info.run_id


def test_a_killed_training_goes_on_in_its_run(stores: Stores) -> None:
    with start(stores) as books:
        assert begin(books) is None
        books.take(0, Started(0, 10, 100, 10))
        follow(books, 1, 2)
    with start(stores) as books:
        assert begin(books) == b"after 2"
        follow(books, 3)
        end(books, 3)
    check(stores, 3)
    with start(stores) as books:
        assert books.job(TRIAL) is None
        assert books.ended[0].epochs == 3


def test_killed_between_its_run_and_its_result_it_ends_once(stores: Stores) -> None:
    with start(stores) as books:
        begin(books)
        follow(books, 1)
        end(books, 1)
    folder = stores.state_dir / "demo" / "finals" / FOLDER
    (folder / RESULT).unlink()
    (folder / CHECKPOINT).write_bytes(b"after 1")
    with start(stores) as books:
        assert begin(books) == b"after 1"
        end(books, 1)
    check(stores, 1)
    (folder / CHECKPOINT).write_bytes(b"after 1")
    with start(stores) as books:
        assert books.job(TRIAL) is None
    check(stores, 1)


def test_it_waits_for_a_store_that_is_away_when_it_begins(stores: Stores, away: Away) -> None:
    with start(stores, looks=10) as books:
        away.go(looks=3)
        begin(books)
        follow(books, 1)
        end(books, 1)
    check(stores, 1)


def test_it_waits_for_a_store_that_is_away_when_it_ends(stores: Stores, away: Away) -> None:
    with start(stores, looks=10) as books:
        begin(books)
        follow(books, 1)
        away.go(looks=3)
        end(books, 1)
    check(stores, 1)


def test_stopped_while_a_store_is_away_it_ends_in_the_next_start(
    stores: Stores, away: Away
) -> None:
    with start(stores, looks=2) as books:
        begin(books)
        away.go()
        follow(books, 1)
        with pytest.raises(Stopped):
            end(books, 1)
        books.close()
        away.come()
    with start(stores) as books:
        assert begin(books) == b"after 1"
        end(books, 1)
    check(stores, 1)


def test_a_full_disk_costs_a_checkpoint_and_leaves_no_run_running(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    second = TrialRecord(1, "complete", TRIAL.params, 0.6)
    with start(stores) as books:
        begin(books)
        books.job(second)
        books.begin(1)
        follow(books, 1)
        monkeypatch.setattr(finals_books, "replace_file", full)
        follow(books, 2)
        monkeypatch.undo()
        monkeypatch.setattr(np, "savez_compressed", full)
        books.close()
    client = connect(stores)
    runs = client.search_runs(["0"], filter_string="tags.kind = 'final'")
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"]
    folder = stores.state_dir / "demo" / "finals" / FOLDER
    assert (folder / CHECKPOINT).read_bytes() == b"after 1"
    assert (folder / EPOCHS).exists()


def test_a_failed_training_says_why(stores: Stores) -> None:
    with start(stores) as books:
        begin(books)
        books.take(0, Failed("out_of_memory", "memory ran out"))
    (run,) = connect(stores).search_runs(["0"], filter_string="tags.kind = 'final'")
    assert run.info.status == "FAILED"
    assert run.data.tags["reason"] == "out_of_memory"
    final = books.ended[0]
    assert (final.score, final.reason) == (None, "memory ran out")


def test_whoever_has_lost_the_study_leaves_its_runs_alone(stores: Stores) -> None:
    with start(stores) as books:
        begin(books)
        lease = books._opened.lease
        lease._lost.set()
        books.close()
        (run,) = connect(stores).search_runs(["0"], filter_string="tags.kind = 'final'")
        assert run.info.status == "RUNNING"
        with pytest.raises(StudyBusyError, match="taken over"):
            lease.check()
