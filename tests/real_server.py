"""`qm9flow serve` as a process of its own, as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RealServer:
    """A server that runs.

    Attributes:
        process: Of the command.
        url: Where it answers.
        log: What it and its children write to standard error.
        greeting: What it said once it was ready.
    """

    process: "subprocess.Popen[str]"
    url: str
    log: Path
    greeting: str

    def ask(
        self, path: str, body: Any = None, seconds: float = 60, **headers: str
    ) -> tuple[int, Any]:
        """One request.

        Args:
            path: With its slash.
            body: To be sent as JSON; None sends nothing.
            seconds: To wait at most.
            **headers: With underscores for dashes.

        Returns:
            Status and body; the body as text where it is no JSON.
        """
        data = None if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json", **named}
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def end(self, number: int = signal.SIGTERM, seconds: float = 90) -> int:
        """End it, and wait.

        Args:
            number: The signal.
            seconds: To wait at most.

        Returns:
            Its exit status.
        """
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def real_server(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None
) -> Iterator[RealServer]:
    """Start one, and wait until it is ready.

    Args:
        folder: Its current folder; its log goes there.
        *options: Of `qm9flow serve`.
        environment: Variables besides this process's.

    Yields:
        The server.
    """
    command = [sys.executable, "-m", "qm9flow", "serve", "--port", "0", *options]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    log = folder / "server.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=variables,
            start_new_session=True,
        ) as process,
    ):
        banner = ""
        for line in process.stdout or ():
            banner += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"curl (http://\S+)/predict", banner)
        if not found:
            process.wait(60)
            raise RuntimeError(f"no server came up: {banner}{log.read_text()}")
        server = RealServer(process, found[1], log, banner)
        try:
            yield server
        finally:
            server.end()
