"""One process at a time, on one machine: a file lock that the kernel drops with its process."""

import fcntl
import json
import os
import socket
import time
import uuid
import weakref
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qm9flow.errors import StudyBusyError, StudyError

STALE_SECONDS = 180.0
"""A holder on another machine that has not been heard of for so long is gone. Clocks may differ
by a minute."""


@dataclass(frozen=True)
class Holder:
    """Who runs a study or a training.

    Attributes:
        host: Name of the machine.
        pid: Process there.
        born: When the system says that the process started; tells two uses of a pid apart.
        since: When it was taken, UTC.
        token: Of this lock.
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


def this_process() -> Holder:
    """This process as a holder, with a token of its own.

    Returns:
        The holder.
    """
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


def parse_holder_file(path: Path) -> Holder | None:
    """Who a lock file speaks of.

    Args:
        path: The file of a `FileLock`.

    Returns:
        The holder, perhaps gone; None if nobody has ever held it, or is just taking it.
    """
    try:
        return parse_holder(json.loads(path.read_text()))
    except (OSError, ValueError):
        return None


def living_holder(path: Path) -> Holder | None:
    """Who holds a lock file, as far as can be seen from this machine.

    Args:
        path: The file of a `FileLock`.

    Returns:
        The holder; None if it is gone, or lives and has given the lock back.
    """
    holder = parse_holder_file(path)
    if holder is None or not holder.is_alive:
        return None
    is_here = holder.host == socket.gethostname()
    return None if is_here and not _is_locked(path) else holder


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)  # which gives a lock back that was had
    return False


_held: "weakref.WeakSet[FileLock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child shares the file lock, and would keep it after its parent's death."""
    for lock in list(_held):
        lock.drop()


os.register_at_fork(after_in_child=_forget_in_child)


def held_tokens() -> set[str]:
    """Tokens of the locks that this process holds.

    Returns:
        The tokens.
    """
    return {lock.me.token for lock in _held}


class FileLock:
    """The right to run something on this machine; a context manager.

    Attributes:
        me: Who holds it, while it is held.
    """

    def __init__(self, what: str, file: Path) -> None:
        """Nothing is taken yet.

        Args:
            what: The study or training with its name, for messages.
            file: The lock; its folder is made.
        """
        self.me = this_process()
        self._what = what
        self._file = file
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Returns:
            The lock.

        Raises:
            StudyBusyError: Another process on this machine holds it.
            StudyError: The lock's place cannot be written to.
        """
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StudyError(f"cannot lock {self._what}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise self.busy(parse_holder_file(self._file)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(self.me)).encode(), 0)
        self._descriptor = descriptor
        _held.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back."""
        _held.discard(self)
        if self._descriptor is not None:
            # Not only closed: a child that was just forked may still have to close its own.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self.drop()

    def drop(self) -> None:
        """Close the lock file in this process."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def busy(self, holder: Holder | None) -> StudyBusyError:
        """The error that tells who holds it.

        Args:
            holder: The holder, None if unknown.

        Returns:
            The error, with advice.
        """
        who = "another process"
        if holder is not None:
            who = f"process {holder.pid} on {holder.host}, since {holder.since}"
        advice = "wait for it, stop it, or choose another name"
        if holder is not None and holder.host != socket.gethostname():
            advice += f" (if it is gone, this is free {STALE_SECONDS:.0f} s after its end)"
        return StudyBusyError(f"{self._what} is being run by {who}: {advice}")
