"""Servers that benchmarks start, and clients that keep them busy; nothing runs from here.

A client is a thread with one connection, which it keeps; it sends bodies that were made before, and
of an answer it looks at the status alone unless it is asked to keep it. All clients live in a
process of their own, so that they share no interpreter with what prepares and checks.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 300.0
ANSWER_SECONDS = 120.0
IDLE_SECONDS = 2.0
"""After which a client opens another connection."""

HOST = "127.0.0.1"

REFUSALS = frozenset({"429", "503", "504"})
"""What a service may say that has too much to do."""

TOLERANCE = 1e-4
"""Of right values, relative to 1 or the value: the network's float32, in other batches."""


@dataclass
class Heard:
    """What clients heard.

    Attributes:
        seconds: How long they asked.
        latencies: Seconds of each answer.
        statuses: How often which; `broken` where there was no answer.
        client_cpu_s: CPU time of the clients.
        refused_latencies: Seconds of each refusal.
        checked: Answers whose values were looked at.
        wrong: What was wrong with answers or refusals, a few of them.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    client_cpu_s: float = 0.0
    refused_latencies: list[float] = field(default_factory=list)
    checked: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: "Heard") -> None:
        """Take in what others heard."""
        self.seconds += other.seconds
        self.latencies += other.latencies
        self.statuses += other.statuses
        self.client_cpu_s += other.client_cpu_s
        self.refused_latencies += other.refused_latencies
        self.checked += other.checked
        self.wrong += other.wrong[:5]


@dataclass(frozen=True)
class Expected:
    """The right answer to one body.

    Attributes:
        values: By version, of each molecule its values by target; None where it has an error.
    """

    values: dict[int | None, list[dict[str, float | None] | None]]

    def fault_of(self, body: bytes) -> str | None:
        """What is wrong with an answer.

        Args:
            body: Of an answer with status 200.

        Returns:
            None if nothing is.
        """
        answer = json.loads(body)
        version = answer["model"]["version"]
        if version not in self.values:
            return f"version {version} answers"
        expected = self.values[version]
        if len(answer["results"]) != len(expected):
            return f"{len(answer['results'])} results of {len(expected)} molecules"
        pairs = zip(answer["results"], expected, strict=True)
        found = [fault for result, right in pairs if (fault := _fault(result, right))]
        return f"version {version}: {found[0]}" if found else None


def _fault(result: dict[str, Any], right: dict[str, float | None] | None) -> str | None:
    if not result["ok"]:
        code = result["error"]["code"]
        return None if right is None or code == "timeout" else f"refused as {code}"
    if right is None:
        return "an answer to a molecule that is none"
    for name, value in result["values"].items():
        wanted = right[name]
        if value is None or wanted is None:
            if value is not wanted:
                return f"{name} is {value}, not {wanted}"
        elif abs(value - wanted) > TOLERANCE * max(1.0, abs(wanted)):
            return f"{name} is {value}, not {wanted}"
    return None


@dataclass(frozen=True)
class Target:
    """Where clients send their bodies.

    Attributes:
        port: Of this machine.
        path: With its slash.
        bodies: JSON, sent one after the other, from a different place for each client.
        expected: The right values of each body, by version that may answer; for the answers of
            qm9flow, and none where nobody looks.
    """

    port: int
    path: str
    bodies: Sequence[bytes]
    expected: "Sequence[Expected]" = ()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as opened:
        opened.bind((HOST, 0))
        return int(opened.getsockname()[1])


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """One request over a connection of its own.

    Args:
        port: Of this machine.
        path: With its slash.
        body: JSON to post; None gets.

    Returns:
        Status and body.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextlib.contextmanager
def serving(
    command: Sequence[str], port: int, ready: str, folder: Path, **variables: str
) -> Iterator[psutil.Process]:
    """Start a server, wait until it is ready, and end it with all its children.

    Args:
        command: Of its program, behind `python -m`.
        port: Where it answers.
        ready: Path that answers with 200 when it does.
        folder: Its current folder; what it says goes to `PROGRAM.log` there.
        **variables: Of its environment, besides this process's.

    Yields:
        Its first process.
    """
    log = folder / f"{command[0]}.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": _path(), **variables},
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, port, ready, log)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _path() -> str:
    """Where programs lie: MLflow's server is started by another that is looked for there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _wait_until_ready(process: "subprocess.Popen[bytes]", port: int, ready: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(port, ready)[0] == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"no server came up: {log.read_text()[-3000:]}")


def serve_qm9flow(
    folder: Path, port: int, uri: str, *options: str
) -> contextlib.AbstractContextManager[psutil.Process]:
    """`qm9flow serve` of a registry's champion.

    Args:
        folder: For what it writes.
        port: To listen at.
        uri: Of the registry.
        *options: More of them.
    """
    command = ("qm9flow", "serve", "--port", str(port), "--tracking-uri", uri, *options)
    return serving(command, port, "/readyz", folder, BENTOML_DO_NOT_TRACK="True")


def family(first: psutil.Process) -> list[psutil.Process]:
    """A process and all that it started, as far as they live."""
    try:
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def lasting(first: psutil.Process) -> set[int]:
    """Numbers of a service's processes without those that make geometries, which may be killed."""
    return {
        process.pid
        for process in family(first)
        if "qm9flow.molecules.worker" not in " ".join(process.cmdline())
    }


def cpu_seconds(first: psutil.Process) -> float:
    """CPU time of a process and all its children so far, those that have ended included."""
    total = 0.0
    for process in family(first):
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory_mb(first: psutil.Process) -> float:
    """Memory that a process and its children have for themselves (Linux), else resident."""
    total = 0
    for process in family(first):
        with contextlib.suppress(psutil.Error):
            info = process.memory_full_info()
            total += getattr(info, "pss", info.rss)
    return total / 1e6


class _Schedule:
    """When requests are sent: at a rate, whatever becomes of them, or one after the other."""

    def __init__(self, rate: float | None, end: float) -> None:
        self.end = end
        self._rate = rate
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def wait(self) -> bool:
        """Wait for one's turn; False if it never comes."""
        if self._rate is not None:
            with self._lock:
                turn, self._next = self._next, self._next + 1 / self._rate
            time.sleep(max(0.0, min(turn, self.end) - time.monotonic()))
        return time.monotonic() < self.end


def hammer(target: Target, connections: int, seconds: float, rate: float | None = None) -> Heard:
    """Ask over so many connections, for so long.

    Args:
        target: What and where.
        connections: Clients side by side.
        seconds: After which no more requests are sent; the last ones are still waited for.
        rate: Requests a second, whatever becomes of them, as long as a connection is free; None
            means that each client sends its next request when it has its answer.

    Returns:
        What was heard.
    """
    heard = [Heard() for _ in range(connections)]
    cpu, began = time.process_time(), time.monotonic()
    schedule = _Schedule(rate, began + seconds)
    clients = [
        threading.Thread(target=_client, args=(target, place, schedule, one))
        for place, one in enumerate(heard)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    total = Heard()
    for one in heard:
        total.add(one)
    total.seconds = time.monotonic() - began
    total.client_cpu_s = time.process_time() - cpu
    return total


def _client(target: Target, place: int, schedule: _Schedule, heard: Heard) -> None:
    connection = http.client.HTTPConnection(HOST, target.port, timeout=ANSWER_SECONDS)
    at, used = place, time.monotonic()
    while schedule.wait():
        at = (at + 1) % len(target.bodies)
        if time.monotonic() - used > IDLE_SECONDS:
            connection.close()  # or the server does, which waits five seconds, just as we send
        used = time.monotonic()
        began = time.perf_counter()
        try:
            connection.request(
                "POST", target.path, target.bodies[at], {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            heard.statuses[f"broken: {type(error).__name__}"] += 1
            time.sleep(0.05)
            continue
        used = time.monotonic()
        _note(target, at, heard, (answer.status, body, time.perf_counter() - began))
    connection.close()


def _note(target: Target, at: int, heard: Heard, answer: tuple[int, bytes, float]) -> None:
    status, body, seconds = answer
    heard.statuses[str(status)] += 1
    fault = None
    if status == 200:
        heard.latencies.append(seconds)
        if target.expected:
            heard.checked += 1
            fault = target.expected[at].fault_of(body)
    else:
        heard.refused_latencies.append(seconds)
        fault = _fault_of_refusal(status, body)
    if fault:
        heard.wrong.append(fault)


def _fault_of_refusal(status: int, body: bytes) -> str | None:
    try:
        is_promised = {"code", "message", "request_id"} == set(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        is_promised = False
    return None if is_promised else f"{status} with {body[:80]!r}"
