"""Stores of their own for each test, beside one MLflow database that is copied."""

import shutil
from pathlib import Path

import pytest
from small_study import make_template, run_study, small_config, stores_at

from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.coordinator import StudyResult


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds."""
    return make_template(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def stores(tmp_path: Path, mlflow_template: Path) -> Stores:
    """Stores in an empty folder."""
    shutil.copy(mlflow_template, tmp_path / "mlflow.db")
    return stores_at(tmp_path)


@pytest.fixture(autouse=True)
def no_runs_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store, run or experiment named by the environment."""
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, mlflow_template: Path, dataset: Dataset
) -> tuple[Stores, StudyResult]:
    """A study of five trials that nobody has interrupted; only to be looked at."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    stores = stores_at(folder)
    return stores, run_study(stores, dataset, small_config(n_trials=5))
