"""What all rooms share: the whole of QM9, opened once; and which tests begin first."""

import os
from pathlib import Path
from typing import IO

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")

import pytest

from qm9flow.data.store import Dataset, open_dataset

BEGIN_FIRST = ("workflows", "serving", "training")
"""Rooms whose files take longest: two processes that begin with them end at the same time."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under xdist, files are given out in this order; a long one at the end is waited for."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name not in BEGIN_FIRST)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """All of QM9, memory-mapped; prepared on first use."""
    return open_dataset()


@pytest.fixture
def stores_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as current directory, with no store named by the environment."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, and saved as a line of text: matplotlib takes seconds to paint them."""

    from matplotlib.figure import Figure

    def save(figure: Figure, place: IO[bytes] | Path, **options: object) -> None:
        if isinstance(place, Path):
            place.write_bytes(b"a picture")
        else:
            place.write(b"a picture")

    monkeypatch.setattr(Figure, "savefig", save)
