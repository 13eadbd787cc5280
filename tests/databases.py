"""MLflow's database for a test of its own: making one takes seconds, copying it does not."""

import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path

from qm9flow.tracking.stores import Stores, connect


@cache
def _template() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="qm9flow-mlflow-"))
    connect(stores_at(folder))
    return folder / "mlflow.db"


def put_database(folder: Path) -> Path:
    """Write an empty database, as `connect` would make it there.

    Args:
        folder: Artifacts go to `mlruns` in it.

    Returns:
        The database.
    """
    path = Path(shutil.copy(_template(), folder / "mlflow.db"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),)
        )
    return path


def stores_at(folder: Path) -> Stores:
    """Stores in a folder, as `mlflow run` from there would have them."""
    base = folder / "mlruns"
    return Stores(
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        optuna_url=f"sqlite:///{base}/optuna.db",
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )
