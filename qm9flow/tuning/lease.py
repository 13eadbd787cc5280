"""One coordinator a study: a lease that dies with its holder.

On one machine a file lock says who runs a study; the kernel drops it with the process, however
that ends. Other machines see a heartbeat in the study itself.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from qm9flow.errors import StudyBusyError, StudyError
from qm9flow.tuning.locks import FileLock, Holder, held_tokens, parse_holder

BEAT_SECONDS = 20.0

log = logging.getLogger(__name__)


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
        self._lock = FileLock(f"study {study!r}", file)
        self._read = read
        self._write = write
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_lost(self) -> bool:
        """Whether another coordinator has taken over; then nothing may be written any more."""
        return self._lost.is_set()

    def check(self) -> None:
        """Refuse to go on without it.

        Raises:
            StudyBusyError: Another coordinator has taken over.
        """
        if self.is_lost:
            raise StudyBusyError(
                f"study {self._study!r} was taken over by another process while this one "
                "was out of reach; this one has stopped"
            )

    def __enter__(self) -> Self:
        """Take the lease.

        Returns:
            The lease.

        Raises:
            StudyBusyError: Another coordinator holds it.
        """
        with contextlib.ExitStack() as undo:
            undo.enter_context(self._lock)
            self._claim_note()
            undo.pop_all()
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
        self._lock.__exit__(kind, error, trace)

    def _claim_note(self) -> None:
        holder = parse_holder(self._read())
        if holder is not None and holder.is_alive and not self._is_leftover(holder):
            raise self._lock.busy(holder)
        self._write(asdict(self._lock.me))
        holder = parse_holder(self._read())
        if holder is None or holder.token != self._lock.me.token:
            raise self._lock.busy(holder)

    def _is_leftover(self, holder: Holder) -> bool:
        """Whether this process left the note, having found no way to take it away."""
        me = self._lock.me
        mine = (holder.host, holder.pid, holder.born) == (me.host, me.pid, me.born)
        return mine and holder.token not in held_tokens()

    def _beat(self) -> None:
        me = self._lock.me
        while not self._ended.wait(BEAT_SECONDS):
            try:
                holder = parse_holder(self._read())
                if holder is not None and holder.token != me.token:
                    self._lost.set()
                    return
                self._write({**asdict(me), "beat": time.time()})
            except StudyError as error:
                log.warning("no sign of life for study %s: %s", self._study, error)
