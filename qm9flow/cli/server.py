"""A BentoML server as a child process: start, wait until it is ready, end."""

import dataclasses
import http.client
import ipaddress
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qm9flow
from qm9flow import locations
from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig
from qm9flow.errors import ConfigError, InferenceError
from qm9flow.registry.find import FoundModel, find_model

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""For loading the model and starting the processes; some seconds on an idle machine."""

CLOSE_SECONDS = 10.0
"""For the processes to end when no request is under way any more."""

IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""MLflow tries a server that has gone away for minutes: who asks every few seconds need not."""

_HOME = Path(qm9flow.__file__).resolve().parent.parent


def address(host: str, port: int) -> tuple[str, int]:
    """An address that a server can listen on.

    Args:
        host: An IP address, or `localhost`.
        port: A port; 0 takes a free one.

    Returns:
        IP address and port.

    Raises:
        ConfigError: The host is no address of this machine, or the port is taken.
    """
    host = "127.0.0.1" if host == "localhost" else host
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError as error:
        raise ConfigError(f"--host must be an IP address or localhost, got {host!r}") from error
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port}: {error.strerror}; choose another --port "
                "or --host"
            ) from error
        return host, int(probe.getsockname()[1])


class Server:
    """One running server.

    Attributes:
        url: Where it answers.
    """

    def __init__(
        self, process: "subprocess.Popen[bytes]", host: str, port: int, stop_seconds: float
    ) -> None:
        """Wrap a process.

        Args:
            process: BentoML's.
            host: What it listens on; requests to a wildcard go to the loopback.
            port: What it listens on.
            stop_seconds: How long it may take to end.
        """
        self._process = process
        self._stop_seconds = stop_seconds
        reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self._address = (reach, port)
        self.url = f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"

    def wait_until_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait for the model.

        Args:
            seconds: At most.

        Raises:
            InferenceError: The model cannot be loaded, the server ended, or time ran out.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise InferenceError("the server ended while it was starting: see its log above")
            status, code = self._readiness()
            if status == 200:
                return
            if code == "failed":
                raise InferenceError("the model cannot be served: see the server's log above")
            time.sleep(0.1)
        raise InferenceError(f"the server was not ready after {seconds:g} s: see its log above")

    def wait(self) -> int:
        """Wait for the server's end.

        Returns:
            Its exit status.
        """
        return self._process.wait()

    def stop(self) -> None:
        """End it: politely first, with all its processes at last."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            logger.warning(
                "the server does not end within %g s, so it is killed", self._stop_seconds
            )
        finally:
            self._kill_all()
            if self._process.stdin is not None:
                self._process.stdin.close()

    def _kill_all(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # none is left
        self._process.wait()

    def _readiness(self) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self._address, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            body = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            return 0, ""  # not listening yet
        finally:
            connection.close()
        return answer.status, body.get("error", {}).get("code", "")


def with_model(config: ServeConfig) -> tuple[ServeConfig, FoundModel]:
    """Find the model before a server is started, in the caller's folder.

    Args:
        config: What is wanted.

    Returns:
        The same with the bundle's folder and the store's full address, and the model.

    Raises:
        RegistryError: There is no such model.
    """
    found = find_model(config.model, config.tracking_uri)
    uri = locations.tracking_uri(config.tracking_uri)
    is_folder = found.version is None and found.alias is None
    full = dataclasses.replace(
        config,
        model=str(found.bundle) if is_folder else config.model,
        bundle=str(found.bundle),
        version=found.version,
        alias=found.alias,
        tracking_uri=uri,
    )
    return full, found


@contextmanager
def running_server(config: ServeConfig, host: str, port: int) -> Iterator[Server]:
    """Start a server; end it when the block is left.

    Args:
        config: What to serve.
        host: From `address`.
        port: From `address`.

    Yields:
        The server, not yet ready.
    """
    command = [sys.executable, "-m", "qm9flow.cli.tied", "serve", "serving.service:QM9Flow"]
    command += ["--host", host, "--port", str(port), "--working-dir", str(_HOME)]
    command += ["--timeout-graceful-shutdown", str(math.ceil(config.stop_seconds))]
    stop_seconds = config.linger_seconds + config.stop_seconds + CLOSE_SECONDS
    with tempfile.TemporaryDirectory(prefix="qm9flow-serve-") as home:
        told = dataclasses.replace(config, handover=str(Path(home) / "model.json"))
        environment = {
            "BENTOML_HOME": home,  # its metrics folder must not be another server's
            **IMPATIENCE,
            **os.environ,
            "BENTOML_DO_NOT_TRACK": "True",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            SERVE_ENVIRONMENT: json.dumps(dataclasses.asdict(told)),
        }
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=_HOME,
            stdin=subprocess.PIPE,  # never written to: it tells the server that we are gone
            stdout=2,  # BentoML logs to standard output; ours is for people
            start_new_session=True,  # Ctrl-C reaches us alone, and we end it once
        )
        server = Server(process, host, port, stop_seconds)
        try:
            yield server
        finally:
            server.stop()
