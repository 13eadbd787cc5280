"""One MLflow database for all tests of this room (making one takes seconds), and made-up events."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from databases import put_database, stores_at
from mlflow import MlflowClient

from qm9flow.tracking.stores import Stores, connect
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded, GradientSummary, Verdict

LAYERS = ("embedding", "conv.0", "conv.1", "readout.0")

MakeEpoch = Callable[..., EpochEnded]


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Stores with an MLflow database that exists."""
    folder = tmp_path_factory.mktemp("tracking")
    put_database(folder)
    found = stores_at(folder)
    connect(found)
    return found


@pytest.fixture
def client(stores: Stores) -> MlflowClient:
    """A client of that database."""
    return connect(stores)


@pytest.fixture(autouse=True)
def no_runs_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run or experiment named by the environment."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def study(stores: Stores, request: pytest.FixtureRequest) -> Iterator[StudyTracker]:
    """A study of its own for each test."""
    config = {"n_trials": 3, "model": {"hidden": 8, "radial": None}}
    tracker = StudyTracker.open(stores, request.node.name, config, patience_seconds=1.0)
    yield tracker
    tracker.finish("FINISHED")


@pytest.fixture
def make_epoch() -> MakeEpoch:
    """Makes the event of an epoch, the same one for the same arguments."""

    def make(epoch: int, *, is_best: bool = True, verdict: Verdict = "healthy") -> EpochEnded:
        random = np.random.default_rng(epoch)
        counts = np.zeros((len(LAYERS), 32), dtype=np.int64)
        counts[:, 10:20] = random.integers(1, 1000, (len(LAYERS), 10))
        gradients = GradientSummary(
            layers=LAYERS,
            norm=random.random(len(LAYERS)),
            maximum=random.random(len(LAYERS)),
            zero_share=random.random(len(LAYERS)),
            histogram=counts,
            samples=3,
            verdict=verdict,
        )
        metrics = {"val/score": 1 / epoch, "train/loss": 2 / epoch, "val/gap/mae": 0.5 / epoch}
        return EpochEnded(epoch, metrics, gradients, is_best)

    return make
