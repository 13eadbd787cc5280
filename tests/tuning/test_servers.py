"""Studies whose stores are servers: MLflow's, away for a while, and PostgreSQL's."""

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import check_ended, comparable
from servers import PASSWORD, Postgres, mlflow_server, postgres
from small_study import run_study, small_config

from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.coordinator import StudyResult
from qm9flow.tuning.executors import Answer, InProcessExecutor
from qm9flow.workflows.doctor import stores as doctor

AWAY_SECONDS = 60.0
DATABASE_AWAY_SECONDS = 20.0
STOP_AFTER = 8

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def stores_behind(uri: str, folder: Path, optuna_url: str | None = None) -> Stores:
    base = folder / "mlruns"
    return Stores(
        tracking_uri=uri,
        optuna_url=optuna_url or f"sqlite:///{base}/optuna.db",
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )


class Watched(InProcessExecutor):
    """Calls somebody after some epochs."""

    def __init__(self, dataset: Dataset, after: int, call) -> None:
        super().__init__(dataset)
        self.left, self.call = after, call

    def collect(self) -> list[Answer]:
        answers = super().collect()
        self.left -= len(answers)
        if self.left <= 0 and self.call is not None:
            call, self.call = self.call, None
            call()
        return answers


@pytest.mark.parametrize("after", [1, 4])
def test_a_server_that_is_away_for_a_minute(
    tmp_path: Path, dataset: Dataset, undisturbed: tuple[Stores, StudyResult], after: int
) -> None:
    with mlflow_server(tmp_path) as server:

        def outage() -> None:
            server.kill()
            threading.Timer(AWAY_SECONDS, server.start).start()

        stores = stores_behind(server.uri, tmp_path)
        began = time.monotonic()
        executor = Watched(dataset, after, outage)
        run_study(stores, dataset, small_config(n_trials=5), executor=executor)
        assert time.monotonic() - began > AWAY_SECONDS
        assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A PostgreSQL server."""
    with postgres() as server:
        yield server


def test_all_stores_on_postgresql(
    tmp_path: Path,
    dataset: Dataset,
    undisturbed: tuple[Stores, StudyResult],
    database: Postgres,
) -> None:
    with mlflow_server(tmp_path, database.url("mlflow")) as server:
        stores = stores_behind(server.uri, tmp_path, database.url("qm9flow"))
        asked = itertools.count()
        first = run_study(
            stores, dataset, small_config(n_trials=5), stop=lambda: next(asked) > STOP_AFTER
        )
        assert first.ending == "interrupted"
        run_study(stores, dataset, small_config(n_trials=5))
        assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)
        found = list(doctor.examine(stores))
        assert {item.area for item in found} >= {"tracking", "artifacts", "studies"}
        assert not [item for item in found if item.state == "bad"], found


def test_a_database_that_is_away_for_a_while(
    tmp_path: Path,
    dataset: Dataset,
    undisturbed: tuple[Stores, StudyResult],
    database: Postgres,
) -> None:
    """The study's and MLflow's at once, as behind one PostgreSQL server."""
    with mlflow_server(tmp_path, database.url("mlflow")) as server:

        def outage() -> None:
            database.stop()
            threading.Timer(DATABASE_AWAY_SECONDS, database.start).start()

        stores = stores_behind(server.uri, tmp_path, database.url("qm9flow"))
        began = time.monotonic()
        executor = Watched(dataset, 3, outage)
        run_study(stores, dataset, small_config(n_trials=5), executor=executor)
        assert time.monotonic() - began > DATABASE_AWAY_SECONDS
        assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)


def test_a_password_is_nowhere_on_record(tmp_path: Path, database: Postgres) -> None:
    """Not in either database, in artifacts, in files beside them or in what commands print."""
    with mlflow_server(tmp_path, database.url("mlflow")) as server:
        options = "--study-name demo --n-trials 2 --train-size 256 --val-size 64 --max-epochs 1"
        options += " --final-minutes 0.02 --n-jobs 1 --seed-pretrained false"
        named = ["--storage", database.url("qm9flow")]
        said = [qm9flow(tmp_path, server.uri, "study", "run", *options.split(), *named)]
        said += [
            qm9flow(tmp_path, server.uri, *command.split(), *named)
            for command in ("study list", "study show demo", "study show demo --json", "doctor")
        ]
        assert all("demo" in text for text in said[:4])
        assert "qm9flow:***@127.0.0.1" in said[4]
        dumps = {name: database.dump(name) for name in ("qm9flow", "mlflow")}
    assert "demo" in dumps["qm9flow"]
    assert "cfg.storage" in dumps["mlflow"]
    for where, text in (*dumps.items(), *enumerate(said)):
        assert PASSWORD not in text, where
    for path in (tmp_path / "mlruns", tmp_path / "artifacts"):
        for file in path.rglob("*"):
            assert file.is_dir() or PASSWORD.encode() not in file.read_bytes(), file


def qm9flow(folder: Path, tracking_uri: str, *arguments: str) -> str:
    """What a command prints, on both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "qm9flow", *arguments],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": tracking_uri, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
