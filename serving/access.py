"""The access log: one JSON line a request, written by a thread of its own.

A disk that is full, a file that cannot be opened and a pipe that nobody reads lose lines, which are
counted; they never fail or delay a request.
"""

import contextlib
import json
import logging
import logging.handlers
import queue
import re
import sys
import threading
import uuid
from datetime import UTC, datetime
from typing import Any

from serving import metrics
from serving.requests import Note

logger = logging.getLogger("bentoml.qm9flow")

CLOSE_SECONDS = 2.0
"""For the last lines to be written."""

MAX_WAITING = 10_000
"""Lines that wait to be written, at most."""

_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def request_id(given: str | None) -> str:
    """What a request is called in its answer and in the log.

    Args:
        given: By the client; None for nothing.

    Returns:
        That, if it is short and plain, else a new one.
    """
    return given if given is not None and _ID.fullmatch(given) else uuid.uuid4().hex


def line_of(note: Note, **more: Any) -> str:
    """One line.

    Args:
        note: What became of the request.
        **more: What the connection knows: method, route, status, ms, client.

    Returns:
        A JSON object, in ASCII.
    """
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    fields = {"time": moment, "id": note.id, **more, "key": note.key}
    if note.code is not None:
        fields["code"] = note.code
    if note.molecules is not None:
        fields["molecules"] = note.molecules
        if note.code is None:
            fields |= {"ok": note.molecules - note.failed, "failed": note.failed}
        fields["version"] = note.model
    return json.dumps(fields, separators=(",", ":"))


class AccessLog:
    """Where lines go."""

    def __init__(self, file: str | None) -> None:
        """Open it.

        Args:
            file: A file, opened anew when another has been put in its place (logrotate); None
                means standard error.
        """
        self._handler = _handler(file)
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._work, name="access-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have a line written.

        Args:
            line: Without its end.
        """
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            metrics.count_lost_log_line()

    def close(self) -> None:
        """Write what waits, and end; whoever does not take the lines is not waited for."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while (line := self._lines.get()) is not None:
            self._handler.emit(logging.LogRecord("access", logging.INFO, "", 0, line, None, None))
        with contextlib.suppress(OSError):  # what could not be written is written once more
            self._handler.close()


def _handler(file: str | None) -> logging.Handler:
    handler = _FileHandler(file, delay=True) if file else _StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


class _Quiet(logging.Handler):
    """What goes wrong costs its line, and is said once, until a line is written again."""

    _has_said = False
    _has_failed = False
    """Whether the line in hand was lost: what writes it handles errors by itself."""

    def emit(self, record: logging.LogRecord) -> None:
        self._has_failed = False
        try:
            super().emit(record)
        except OSError:  # a file is looked for before errors are handled
            self.handleError(record)
        self._has_said = self._has_said and self._has_failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        self._has_failed = True
        metrics.count_lost_log_line()
        if not self._has_said:
            self._has_said = True
            logger.error("the access log cannot be written: %s", sys.exception())


class _FileHandler(_Quiet, logging.handlers.WatchedFileHandler):
    pass


class _StreamHandler(_Quiet, logging.StreamHandler):
    pass
