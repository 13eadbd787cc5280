"""Servers that tests start for real: MLflow's and PostgreSQL's."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POSTGRES_USER = "postgres"
"""PostgreSQL refuses to run as root; its packages make this user."""


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port


class MlflowServer:
    """`mlflow server --serve-artifacts`, which may be killed and started again.

    Attributes:
        uri: Its address.
    """

    def __init__(self, folder: Path, backend: str | None = None) -> None:
        self.uri = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self._backend = backend or f"sqlite:///{folder}/server.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", self.uri.rpartition(":")[2]]
        command += ["--backend-store-uri", self._backend, "--serve-artifacts", "--workers", "1"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        with (self._folder / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        raise TimeoutError(f"{self.uri} did not start: {(self._folder / 'server.log').read_text()}")

    def kill(self) -> None:
        """End it at once; what it keeps stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def mlflow_server(folder: Path, backend: str | None = None) -> Iterator[MlflowServer]:
    """An MLflow server that keeps runs and artifacts in a folder, or runs in another database."""
    server = MlflowServer(folder, backend)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs, None if it is not installed."""
    known = [Path(found).parent] if (found := shutil.which("initdb")) else []
    known += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in known if (folder / "initdb").exists()), None)


@contextmanager
def postgres(folder: Path, programs: Path) -> Iterator[str]:
    """A PostgreSQL server with the databases `qm9flow` and `mlflow`; gives its URL, less a name."""
    user = POSTGRES_USER if os.getuid() == 0 else None
    data, port = folder / "data", free_port()
    folder.mkdir(parents=True)
    if user is not None:
        shutil.chown(folder, user)
        for parent in folder.parents:  # a temporary folder is closed to other users
            if parent.stat().st_mode & 0o011 != 0o011:
                parent.chmod(parent.stat().st_mode | 0o011)
    run = {"user": user, "cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "qm9flow", "--auth=trust", "--no-sync"],
        check=True,
        capture_output=True,
        **run,
    )
    command = [programs / "postgres", "-D", data, "-k", folder, "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder.parent / "postgres.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, **run)
    try:
        for name in ("qm9flow", "mlflow"):
            _create_database(programs, port, name)
        yield f"postgresql+psycopg://qm9flow@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # a fast shutdown
        server.wait()


def _create_database(programs: Path, port: int, name: str) -> None:
    command = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "qm9flow", name]
    for _ in range(100):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise TimeoutError(f"PostgreSQL did not start: {done.stderr}")
