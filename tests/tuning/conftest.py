"""Stores of their own for each test, beside an MLflow database that is copied."""

from pathlib import Path

import pytest
from databases import put_database
from small_study import run_study, small_config, stores_at

from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.coordinator import StudyResult


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Stores in a folder with an empty MLflow database."""
    put_database(tmp_path)
    return stores_at(tmp_path)


@pytest.fixture(autouse=True)
def no_runs_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, run or experiment named by the environment."""
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, dataset: Dataset
) -> tuple[Stores, StudyResult]:
    """A study of five trials that nobody has interrupted; only to be looked at."""
    folder = tmp_path_factory.mktemp("undisturbed")
    put_database(folder)
    stores = stores_at(folder)
    return stores, run_study(stores, dataset, small_config(n_trials=5))
