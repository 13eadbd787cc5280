"""One coordinator a study: a lease that dies with its holder.

On one machine a file lock says who runs a study; the kernel drops it with the process, however
that ends. Other machines see a heartbeat in the study itself.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qm9flow.errors import StudyBusyError, StudyError

BEAT_SECONDS = 20.0
STALE_SECONDS = 180.0
"""A holder on another machine that has not been heard of for so long is gone. Clocks may differ
by a minute."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who runs a study.

    Attributes:
        host: Name of the machine.
        pid: Process there.
        born: When the system says that the process started; tells two uses of a pid apart.
        since: When the lease was taken, UTC.
        token: Of this lease.
        beat: Last sign of life, seconds since 1970.
    """

    host: str
    pid: int
    born: str
    since: str
    token: str
    beat: float

    @property
    def is_alive(self) -> bool:
        """Whether the holder still runs, as far as can be seen from here."""
        if self.host == socket.gethostname():
            return _born(self.pid) == self.born
        return time.time() - self.beat < STALE_SECONDS


def _born(pid: int) -> str | None:
    """Start of a process in clock ticks since boot, empty if unknown, None if there is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it exists and is somebody else's
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""  # no /proc on this system
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _this_process() -> Holder:
    now = datetime.now(UTC)
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        born=_born(os.getpid()) or "",
        since=now.isoformat(timespec="seconds"),
        token=uuid.uuid4().hex,
        beat=now.timestamp(),
    )


def parse_holder(content: Any) -> Holder | None:
    """Who a note speaks of.

    Args:
        content: The note, None if there is none.

    Returns:
        The holder, None if the note is missing or unreadable.
    """
    try:
        return Holder(**content)
    except TypeError:
        return None  # nobody, or a note by another version


_held: "weakref.WeakSet[Lease]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child shares the file lock, and would keep it after its parent's death."""
    for lease in list(_held):
        lease.drop_file()


os.register_at_fork(after_in_child=_forget_in_child)


class Lease:
    """The right to write to a study; a context manager."""

    def __init__(
        self,
        study: str,
        file: Path,
        read: Callable[[], Any],
        write: Callable[[Any], None],
    ) -> None:
        """Nothing is taken yet.

        Args:
            study: Name of the study, for messages.
            file: The lock on this machine; its folder is made.
            read: Gives the note about the holder that the study carries, None if there is none.
            write: Replaces that note. Both are called from a second thread as well.
        """
        self._study = study
        self._file = file
        self._read = read
        self._write = write
        self._descriptor: int | None = None
        self._me = _this_process()
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_lost(self) -> bool:
        """Whether another coordinator has taken over; then nothing may be written any more."""
        return self._lost.is_set()

    def __enter__(self) -> Self:
        """Take the lease.

        Returns:
            The lease.

        Raises:
            StudyBusyError: Another coordinator holds it.
        """
        self._lock_file()
        try:
            self._claim_note()
        except BaseException:
            self.drop_file()
            raise
        _held.add(self)
        self._thread = threading.Thread(target=self._beat, name="qm9flow-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lease back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=BEAT_SECONDS)
        if not self.is_lost:
            with contextlib.suppress(StudyError):  # the file lock alone frees it on this machine
                self._write(None)
        _held.discard(self)
        if self._descriptor is not None:
            # Not only closed: a child that was just forked may still have to close its own.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.drop_file()

    def drop_file(self) -> None:
        """Close the lock file in this process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock_file(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self._busy(self._note_in_file()) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(self._me)).encode(), 0)
        self._descriptor = descriptor

    def _note_in_file(self) -> Holder | None:
        try:
            return parse_holder(json.loads(self._file.read_text()))
        except ValueError:
            return None  # its holder is just writing it

    def _claim_note(self) -> None:
        holder = parse_holder(self._read())
        if holder is not None and holder.is_alive and not self._is_leftover(holder):
            raise self._busy(holder)
        self._write(asdict(self._me))
        holder = parse_holder(self._read())
        if holder is None or holder.token != self._me.token:
            raise self._busy(holder)

    def _is_leftover(self, holder: Holder) -> bool:
        """Whether this process left the note, having found no way to take it away."""
        mine = (holder.host, holder.pid, holder.born) == (
            self._me.host,
            self._me.pid,
            self._me.born,
        )
        return mine and holder.token not in {lease._me.token for lease in _held}

    def _busy(self, holder: Holder | None) -> StudyBusyError:
        who = "another process"
        if holder is not None:
            who = f"process {holder.pid} on {holder.host}, since {holder.since}"
        advice = "wait for it, stop it, or choose another study_name"
        if holder is not None and holder.host != socket.gethostname():
            advice += f" (if it is gone, the study is free {STALE_SECONDS:.0f} s after its end)"
        return StudyBusyError(f"study {self._study!r} is being run by {who}: {advice}")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                holder = parse_holder(self._read())
                if holder is not None and holder.token != self._me.token:
                    self._lost.set()
                    return
                self._write({**asdict(self._me), "beat": time.time()})
            except StudyError as error:
                log.warning("no sign of life for study %s: %s", self._study, error)
