"""Servers that tests start for real: MLflow's and PostgreSQL's."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

POSTGRES_USER = "postgres"
"""PostgreSQL refuses to run as root; its packages make this user."""

PASSWORD = "not-to-be-seen"
"""Of the user `qm9flow` of a PostgreSQL server."""


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
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._process = process
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if process.poll() is not None:
                    break
                time.sleep(0.5)
        raise RuntimeError(f"{self.uri} did not start: {(self._folder / 'server.log').read_text()}")

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


class Postgres:
    """A PostgreSQL server with a database `qm9flow` and one `mlflow`, stopped and started at will.

    Attributes:
        address: User, password, host and port, as a URL has them.
    """

    def __init__(self, folder: Path, programs: Path) -> None:
        """Make its files; nothing is started.

        Args:
            folder: Empty, and open to whoever the server runs as.
            programs: PostgreSQL's.
        """
        self._programs = programs
        self._port = str(free_port())
        self._log = folder / "server.log"
        self._data = folder / "data"
        self.address = f"qm9flow:{PASSWORD}@127.0.0.1:{self._port}"
        variables = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGPASSWORD": PASSWORD}
        self._how: dict[str, Any] = {"cwd": folder, "env": variables}
        if os.getuid() == 0:
            shutil.chown(folder, POSTGRES_USER)
            self._how |= {"user": POSTGRES_USER, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        given = folder / "password"
        given.write_text(PASSWORD)
        given.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", "qm9flow", "--no-sync", f"--pwfile={given}")
        given.unlink()

    def url(self, database: str) -> str:
        """The address of one of its databases, with the password in it."""
        return f"postgresql+psycopg://{self.address}/{database}"

    def dump(self, database: str) -> str:
        """All that a database holds, as text."""
        return self._run("pg_dump", *self._named(), database)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._programs / "postgres", "-D", self._data, "-p", self._port]
        command += ["-k", self._data, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._how)
        for _ in range(240):
            if self._process.poll() is not None:
                break
            if self._try("pg_isready", *self._named()).returncode == 0:
                return
            time.sleep(0.25)
        raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()}")

    def make_databases(self) -> None:
        """Make the two, once."""
        for name in ("qm9flow", "mlflow"):
            self._run("createdb", *self._named(), name)

    def stop(self) -> None:
        """End it at once, and all connections; what it keeps stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # a fast shutdown
            self._process.wait(timeout=60)
            self._process = None

    def _named(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", self._port, "-U", "qm9flow"]

    def _try(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self._programs / program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **self._how)

    def _run(self, program: str, *arguments: str | Path) -> str:
        done = self._try(program, *arguments)
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs; skips the test where there is none that can be used."""
    found = shutil.which("initdb")
    known = [Path(found).resolve().parent] if found else []
    known += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in known:
        if all((folder / name).exists() for name in ("initdb", "postgres", "createdb")):
            if os.getuid() == 0 and not _is_user(POSTGRES_USER):
                pytest.skip(f"PostgreSQL does not run as root, and there is no {POSTGRES_USER!r}")
            return folder
    pytest.skip("PostgreSQL is not installed: no initdb (Debian: apt-get install postgresql)")


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, in a folder of its own: its user may not enter those of tests."""
    programs = find_postgres()
    with tempfile.TemporaryDirectory(prefix="qm9flow-postgres-") as folder:
        server = Postgres(Path(folder), programs)
        try:
            server.start()
            server.make_databases()
            yield server
        finally:
            server.stop()
