"""Real MLflow stores on SQLite, each test its own."""

import shutil
from pathlib import Path

import pytest
import small_models
from mlflow import MlflowClient
from registering import Registry

from qm9flow.data.store import Dataset


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making them takes seconds, copying them does not."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def bundle(dataset: Dataset) -> Path:
    """A bundle with a real, small network."""
    return small_models.bundle(dataset)


@pytest.fixture
def registry(stores_in: Path, empty_database: Path, bundle: Path) -> Registry:
    """An empty registry in the current folder, and a run to register from."""
    shutil.copy(empty_database, stores_in / "mlflow.db")
    client = MlflowClient(f"sqlite:///{stores_in}/mlflow.db")
    experiment = client.create_experiment("test", str(stores_in / "mlruns" / "test"))
    run_id = client.create_run(experiment).info.run_id
    return Registry(stores_in, client, run_id, bundle)
