"""Registering small models in a test's own store."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from databases import put_database
from mlflow import MlflowClient

from qm9flow.properties import LEARNED, TARGETS
from qm9flow.registry.versions import Version, register

SCALE = np.linspace(0.1, 30.0, len(LEARNED))


@dataclass(frozen=True)
class Registry:
    """A test's store.

    Attributes:
        folder: The current folder; holds `mlflow.db`.
        client: MLflow's own client, to look behind the scenes.
        run_id: A run to register from.
        bundle: A bundle to register.
    """

    folder: Path
    client: MlflowClient
    run_id: str
    bundle: Path

    def add(
        self, release_id: str, factor: float = 1.0, bundle: Path | None = None, **tags: str
    ) -> Version:
        """Register a version whose errors are `factor` times those of the others."""
        return register(
            bundle or self.bundle,
            self.run_id,
            validation_errors=errors(factor),
            scale=SCALE,
            tags=facts(release_id) | tags,
        )


def errors(factor: float = 1.0, n: int = 400) -> np.ndarray:
    """(n, 10) absolute errors of about a tenth of the scale."""
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(size=(n, len(LEARNED)))) * SCALE * 0.1 * factor


def facts(release_id: str) -> dict[str, str]:
    """The tags that every version carries."""
    mae = {f"{part}/{name}/mae": "0.5" for part in ("val", "test") for name in TARGETS}
    return mae | {
        "release_id": release_id,
        "data_digest": "d" * 64,
        "split": "seed",
        "split_seed": "0",
        "split_digest": "s" * 64,
        "parity": "2e-05",
        "git_commit": "0123abc",
        "architecture": "mpnn",
    }


def open_registry(folder: Path, bundle: Path) -> Registry:
    """An empty registry on SQLite in a folder, and a run to register from."""
    put_database(folder)
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("test", str(folder / "mlruns" / "test"))
    run_id = client.create_run(experiment).info.run_id
    return Registry(folder, client, run_id, bundle)
