"""The same registry behind an MLflow server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import served
from mlflow import MlflowClient
from registering import SCALE, errors, facts

from qm9flow.data.store import Dataset
from qm9flow.errors import RegistryError
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.checksum import folder_sha256
from qm9flow.registry.versions import fetch, list_versions, register, resolve


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server that keeps the artifacts itself."""
    uri = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", uri.rpartition(":")[2]]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(uri)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(uri: str) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    raise TimeoutError(f"{uri} did not start")


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
