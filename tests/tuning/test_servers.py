"""Studies whose stores are servers: MLflow's, away for a while, and PostgreSQL's."""

import itertools
import threading
import time
from pathlib import Path

import pytest
from accounts import check_ended, comparable
from servers import find_postgres, mlflow_server, postgres
from small_study import run_study, small_config

from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.coordinator import StudyResult
from qm9flow.tuning.executors import Answer, InProcessExecutor

AWAY_SECONDS = 60.0
STOP_AFTER = 8

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


def test_all_stores_on_postgresql(
    tmp_path: Path, dataset: Dataset, undisturbed: tuple[Stores, StudyResult]
) -> None:
    programs = find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with (
        postgres(tmp_path / "postgres", programs) as url,
        mlflow_server(tmp_path, f"{url}/mlflow") as server,
    ):
        stores = stores_behind(server.uri, tmp_path, f"{url}/qm9flow")
        asked = itertools.count()
        first = run_study(
            stores, dataset, small_config(n_trials=5), stop=lambda: next(asked) > STOP_AFTER
        )
        assert first.ending == "interrupted"
        run_study(stores, dataset, small_config(n_trials=5))
        assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)
