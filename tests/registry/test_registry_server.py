"""The same registry behind an MLflow server."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import served
from mlflow import MlflowClient
from registering import SCALE, errors, facts
from servers import free_port, mlflow_server

from qm9flow.data.store import Dataset
from qm9flow.errors import RegistryError
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.checksum import folder_sha256
from qm9flow.registry.versions import fetch, list_versions, register, resolve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server that keeps the artifacts itself."""
    with mlflow_server(tmp_path) as started:
        yield started.uri


@pytest.mark.slow
def test_a_life_behind_a_server(server: str, dataset: Dataset, tmp_path: Path) -> None:
    bundle = served.bundle(dataset)
    client = MlflowClient(server)
    run_id = client.create_run(client.create_experiment("test")).info.run_id
    for release_id, factor in (("first", 1.0), ("better", 0.5), ("worse", 2.0), ("better", 9.0)):
        version = register(
            bundle,
            run_id,
            validation_errors=errors(factor),
            scale=SCALE,
            tags=facts(release_id),
            tracking_uri=server,
        )
        promote(version, tracking_uri=server)
    assert [item.aliases for item in list_versions(server)] == [
        ("challenger",),
        ("champion",),
        ("previous",),
    ]
    assert rollback(server).number == 1
    folder = fetch(resolve(tracking_uri=server), tmp_path / "bundle", server)
    assert folder_sha256(folder) == folder_sha256(bundle)


def test_server_that_does_not_answer_is_said_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(RegistryError, match="does not answer"):
        list_versions(f"http://name:word@127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 10
