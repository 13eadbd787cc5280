"""One coordinator a study, whatever becomes of it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from qm9flow.errors import StudyBusyError, StudyError
from qm9flow.tuning import lease as lease_module
from qm9flow.tuning.lease import Lease
from qm9flow.tuning.locks import STALE_SECONDS, Holder

HOLD = """
import sys, time
from pathlib import Path
from qm9flow.tuning.lease import Lease
note = [None]
with Lease("s", Path(sys.argv[1]), lambda: note[-1], note.append):
    print("held", flush=True)
    time.sleep(60)
"""


class Note:
    """What a study carries."""

    def __init__(self, content: Any = None) -> None:
        self.content = content

    def read(self) -> Any:
        return self.content

    def write(self, content: Any) -> None:
        self.content = json.loads(json.dumps(content))


def lease(folder: Path, note: Note, name: str = "lease") -> Lease:
    return Lease("demo", folder / name, note.read, note.write)


def foreign(**changes: Any) -> dict[str, Any]:
    holder = Holder("elsewhere", 1, "1", "2026-01-01T00:00:00+00:00", "token", time.time())
    return asdict(holder) | changes


def test_a_second_one_is_refused_politely(tmp_path):
    note = Note()
    with lease(tmp_path, note) as held:
        assert not held.is_lost
        with pytest.raises(StudyBusyError, match=f"process {os.getpid()} on") as refusal:
            lease(tmp_path, note).__enter__()
        assert "since 20" in str(refusal.value)
        assert "study 'demo'" in str(refusal.value)
    assert note.content is None
    with lease(tmp_path, note):
        pass


def test_another_folder_on_this_machine_is_refused_too(tmp_path):
    note = Note()
    with lease(tmp_path, note), pytest.raises(StudyBusyError):
        lease(tmp_path, note, "elsewhere").__enter__()


def test_a_killed_holder_lets_go(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lease")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    note = Note(json.loads((tmp_path / "lease").read_text()))
    with pytest.raises(StudyBusyError, match=f"process {process.pid} on"):
        lease(tmp_path, note).__enter__()
    with pytest.raises(StudyBusyError, match=f"process {process.pid} on"):
        lease(tmp_path, note, "elsewhere").__enter__()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with lease(tmp_path, note):
        pass


def test_a_pid_that_was_given_to_another_process_is_no_holder(tmp_path):
    note = Note(foreign(host=socket.gethostname(), pid=os.getpid(), born="1"))
    with lease(tmp_path, note):
        assert note.content["born"] not in ("", "1")


def test_another_machine_holds_it_as_long_as_it_is_heard_of(tmp_path):
    note = Note(foreign())
    with pytest.raises(StudyBusyError, match=r"on elsewhere.*180 s after its end"):
        lease(tmp_path, note).__enter__()
    note.content = foreign(beat=time.time() - STALE_SECONDS - 1)
    with lease(tmp_path, note):
        assert note.content["host"] == socket.gethostname()


def test_two_that_take_a_stale_one_do_not_both_get_it(tmp_path):
    note = Note()
    raced = Lease("demo", tmp_path / "lease", note.read, lambda _: note.write(foreign()))
    with pytest.raises(StudyBusyError, match="on elsewhere"):
        raced.__enter__()


def test_a_holder_notices_that_it_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.02)
    note = Note()
    with lease(tmp_path, note) as held:
        first = note.content["beat"]
        time.sleep(0.1)
        assert note.content["beat"] > first
        assert not held.is_lost
        note.content = foreign()
        time.sleep(0.1)
        assert held.is_lost
    assert note.content["host"] == "elsewhere"  # it left the other's note alone


def test_a_store_that_is_away_does_not_end_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.02)
    note = Note()

    def away(content: Any) -> None:
        raise StudyError("away")

    with lease(tmp_path, note) as held:
        monkeypatch.setattr(held, "_write", away)
        time.sleep(0.1)
        assert not held.is_lost
    monkeypatch.undo()
    with lease(tmp_path, note):  # this process left its note, but let the file go
        pass


def test_a_forked_child_does_not_keep_it(tmp_path):
    note = Note()
    with lease(tmp_path, note):
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
    try:
        with lease(tmp_path, note) as held:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)  # the child is alive, and has let go
            assert not held.is_lost
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
