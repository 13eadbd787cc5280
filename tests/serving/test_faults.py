"""What breaks under load: how much is lost, what is said, how long until all is well again."""

import http.client
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import served
from live import Clients, Setting, until
from real_server import RealServer

from qm9flow.registry.versions import MODEL_NAME

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux"),
]

SWAPS = 20
CONFORMERS = "qm9flow.molecules.worker"


def processes(server: RealServer, kind: str) -> list[psutil.Process]:
    """Those of a server that make geometries, or the one that answers."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    found = [child for child in children if CONFORMERS in " ".join(child.cmdline())]
    if kind == "conformers":
        return found
    return [psutil.Process(process.ppid()) for process in found[:1]]


def point(setting: Setting, number: int) -> None:
    """Let the champion be another version."""
    setting.registry.client.set_registered_model_alias(MODEL_NAME, "champion", str(number))


def say(what: str, seconds: float) -> None:
    """Print how long it took until all was well."""
    print(f"{what}: well again after {seconds:.2f} s")


def test_twenty_swaps_under_load(setting: Setting, gaps: dict[int, float]) -> None:
    taken = []
    with Clients(setting, gaps) as clients:
        for swap in range(SWAPS):
            number = (2, 1)[swap % 2]
            began = time.monotonic()
            point(setting, number)
            setting.wait_for_version(number)
            taken.append(time.monotonic() - began)
    assert clients.wrong == []
    assert clients.versions == {1, 2}
    assert clients.answers > SWAPS
    say(f"{SWAPS} swaps under load, {clients.answers} answers, the slowest swap", max(taken))


def test_a_registry_that_goes_away_under_load(setting: Setting, gaps: dict[int, float]) -> None:
    database = setting.registry.folder / "mlflow.db"
    with Clients(setting, gaps, 2) as clients:
        hidden = database.rename(database.with_name("hidden.db"))
        until(lambda: setting.model()["watch"]["unanswered_since"])
        seen = clients.answers
        until(lambda: clients.answers > seen + 5)
        database.unlink(missing_ok=True)  # SQLite may have made an empty one
        hidden.rename(database)
        began = time.monotonic()
        until(lambda: setting.model()["watch"]["unanswered_since"] is None)
        say("the registry gone and back", time.monotonic() - began)
    assert clients.wrong == []
    assert clients.versions == {1}


@contextmanager
def full_disk(server: RealServer) -> Iterator[None]:
    """No file of the server's grows any more, as on a full disk."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    pids = [child.pid for child in children]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, -1)) for pid in pids]
    try:
        yield
    finally:
        for pid, limits in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_costs_log_lines_and_no_request(
    setting: Setting, gaps: dict[int, float]
) -> None:
    log = setting.registry.folder / "access.log"
    with Clients(setting, gaps, 2) as clients:
        until(lambda: clients.answers > 5)
        with full_disk(setting.server):
            point(setting, 3)  # which no cache holds yet
            failure = until(lambda: setting.model()["next"])
            assert failure["error"]["code"] == "fetch_failed"
            size = log.stat().st_size
            seen = clients.answers
            until(lambda: clients.answers > seen + 5)
            assert log.stat().st_size == size
            _, text = setting.server.ask("/metrics", X_API_Key=setting.key)
            lost = re.search(r"^qm9flow_lost_log_lines_total (\d\S*)", text, re.MULTILINE)
            assert lost
            assert float(lost[1]) >= 5
        began = time.monotonic()
        setting.wait_for_version(3)
        until(lambda: log.stat().st_size > size)
        say("a full disk with space again", time.monotonic() - began)
        point(setting, 1)
        setting.wait_for_version(1)
    assert clients.wrong == []
    assert clients.versions == {1, 3}


def test_killed_makers_of_geometries_are_replaced(setting: Setting) -> None:
    alcohols = [{"smiles": "C" * length + "O"} for length in range(1, 7)]
    right = results(setting, alcohols)
    for _ in range(3):
        for process in processes(setting.server, "conformers"):
            process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert results(setting, alcohols) == right
        say("killed makers of geometries", time.monotonic() - began)


def results(setting: Setting, molecules: list[dict[str, str]]) -> Any:
    status, body = setting.predict(*molecules, targets=["gap"])
    assert status == 200
    assert all(result["ok"] for result in body["results"]), body
    return [result["values"] for result in body["results"]]


def test_a_killed_process_is_started_again_and_answers_right(
    setting: Setting, gaps: dict[int, float]
) -> None:
    number_of_clients = 3
    with Clients(setting, gaps, number_of_clients) as clients:
        until(lambda: clients.answers > 10)
        (worker,) = processes(setting.server, "worker")
        orphans = processes(setting.server, "conformers")
        began = time.monotonic()
        worker.send_signal(signal.SIGKILL)
        seen = clients.answers
        until(lambda: clients.answers > seen + 2 * number_of_clients, 120)
        until(lambda: is_ready(setting.server), 120)
        say("the process that answers, killed", time.monotonic() - began)
        seen = clients.answers
        until(lambda: clients.answers > seen + 2 * number_of_clients, 120)
    others = [fault for fault in clients.wrong if not is_of_the_start(fault)]
    assert len(others) == len(clients.broken)  # connections, and not one wrong answer
    assert len(clients.broken) <= number_of_clients  # those whose requests it had accepted
    until(lambda: not any(process.is_running() for process in orphans), 30)
    assert processes(setting.server, "worker") != [worker]


def test_a_process_started_again_while_the_registry_is_away_answers_as_the_last_one(
    setting: Setting, gaps: dict[int, float]
) -> None:
    point(setting, 2)
    setting.wait_for_version(2)  # the service was started with version 1
    database = setting.registry.folder / "mlflow.db"
    hidden = database.rename(database.with_name("hidden.db"))
    (worker,) = processes(setting.server, "worker")
    began = time.monotonic()
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    until(lambda: answers(setting.server), 120)
    say("the process that answers, killed while the registry is away", time.monotonic() - began)
    status, body = setting.predict({"xyz": served.WATER}, targets=["gap"])
    assert (status, body["model"]["version"]) == (200, 2)
    assert abs(body["results"][0]["values"]["gap"] - gaps[2]) < 1e-4
    database.unlink(missing_ok=True)  # SQLite may have made an empty one
    hidden.rename(database)
    point(setting, 1)
    setting.wait_for_version(1)


def answers(server: RealServer) -> bool:
    """Whether it is ready; nobody listens for a moment after a kill."""
    try:
        return is_ready(server)
    except (OSError, http.client.HTTPException):
        return False


def is_ready(server: RealServer) -> bool:
    return server.ask("/readyz")[0] == 200


def is_of_the_start(fault: str) -> bool:
    """A refusal, in the promised shape, while the model is loaded."""
    return fault.startswith("503: ") and "'not_ready'" in fault
