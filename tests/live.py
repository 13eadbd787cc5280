"""A real server that follows a registry, and clients that ask it without pause."""

import http.client
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import registering
import served
from real_server import RealServer

SEEDS = {1: 3, 2: 4, 3: 3}
"""Of the weights of each version: the third is the first with another card."""


class Setting:
    """A server that follows the champion of a registry, and its key."""

    def __init__(self, server: RealServer, registry: registering.Registry, key: str) -> None:
        self.server = server
        self.registry = registry
        self.key = key
        self.uri = f"sqlite:///{registry.folder}/mlflow.db"

    def predict(self, *molecules: object, **more: object) -> tuple[int, Any]:
        body = {"molecules": molecules, **more}
        return self.server.ask("/predict", body, Authorization=f"Bearer {self.key}")

    def model(self) -> dict[str, Any]:
        status, body = self.server.ask("/model", X_API_Key=self.key)
        assert status == 200
        answer: dict[str, Any] = body
        return answer

    def wait_for_version(self, number: int) -> None:
        until(lambda: self.model()["version"] == number)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def environment_of(folder: Path) -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "QM9FLOW_CACHE": str(folder / "cache"),
    }


class Clients:
    """Clients that ask without pause, and note whatever is wrong.

    Attributes:
        answers: How many had an answer.
        broken: When there was none, on the monotonic clock.
        versions: That answered.
        wrong: All that was not right.
    """

    def __init__(self, setting: Setting, gaps: dict[int, float], number: int = 4) -> None:
        self.answers = 0
        self.broken: list[float] = []
        self.versions: set[int] = set()
        self.wrong: list[str] = []
        self._setting = setting
        self._gaps = gaps
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,)) for i in range(number)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        water = {"xyz": served.WATER}
        molecules = [water, {"smiles": "CO"}, {"smiles": "C1CC"}] if number == 0 else [water] * 3
        while not self._end.is_set():
            try:
                status, body = self._setting.predict(*molecules, targets=["gap"])
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(time.monotonic())
                self.wrong.append(repr(error))
                time.sleep(0.1)
                continue
            self._look(status, body)

    def _look(self, status: int, body: Any) -> None:
        self.answers += 1
        if status != 200:
            self.wrong.append(f"{status}: {body}")
            return
        version = body["model"]["version"]
        self.versions.add(version)
        gap = body["results"][0]["values"]["gap"]
        if abs(gap - self._gaps[version]) > 1e-4:
            self.wrong.append(f"version {version} says {gap}")
