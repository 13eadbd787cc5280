"""How a long run ends: on record and with its log, whatever happened."""

from pathlib import Path
from typing import Any, cast

import pytest

from qm9flow.tracking.study import StudyTracker
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.journal import closing


class Written:
    """Notes what a run is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log_artifact(self, path: Path) -> None:
        self.calls.append(path)

    def finish(self, status: str) -> None:
        self.calls.append(status)


def ending(error: BaseException | None) -> tuple[list[Any], list[str]]:
    """What the run and what people are told of a block that ends so."""
    written, said = Written(), list[str]()
    console, log = Console(say=said.append), Path("it.log")
    try:
        with closing(cast(StudyTracker, written), log, console, lambda: "goes on later"):
            if error is not None:
                raise error
    except ZeroDivisionError:
        said.append("an error")
    return written.calls, said


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, "FINISHED", []),
        (Stopped(), "KILLED", ["goes on later"]),
        (KeyboardInterrupt(), "KILLED", ["goes on later"]),
        (ZeroDivisionError(), "FAILED", ["an error"]),
    ],
)
def test_a_run_ends_as_its_block_does(
    error: BaseException | None, status: str, said: list[str]
) -> None:
    assert ending(error) == ([Path("it.log"), status], said)
