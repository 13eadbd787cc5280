"""What every request passes: its id, its key, the access log, the metrics."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import metrics
from serving.access import AccessLog, line_of, request_id
from serving.app import Api, Current, refusal
from serving.guard import Guard
from serving.requests import Note, RequestError
from serving.runtime import Runtime

OPEN_PATHS = frozenset({"/", "/docs", "/livez", "/healthz", "/readyz", "/docs.json"})
"""What needs no key: the page, the description, and what supervisors ask."""

OPEN_FOLDERS = ("/page/", "/static_content/")
"""Files of the pages."""

SUPERVISION = frozenset({"/livez", "/healthz", "/readyz", "/metrics"})
"""What is asked every few seconds: in the log only if something is wrong."""

IN_PASSING = frozenset({"not_ready", "stopping"})
"""What supervisors are told at every start and at every end: nothing is wrong."""

DRAIN_FACTOR = 8
"""The body of a refused request is read on, and dropped, up to this many times the limit: most
clients listen only after they have said everything."""

DRAIN_SECONDS = 10.0

PROBE_PATHS = frozenset({"/livez", "/healthz"})
"""What answers even where a service without keys listens to a network."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = b"x-request-id"
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


@dataclass(frozen=True)
class _Doors:
    """What depends on the service's settings."""

    guard: Guard
    log: AccessLog


class Front:
    """ASGI middleware: the service's own routes, BentoML's static files, and nothing else.

    It stands before BentoML's router because that one answers `/readyz` and unknown paths in
    plain text, has a page that loads scripts from elsewhere, and counts requests in a time series
    for every path that clients make up.
    """

    def __init__(self, app: ASGIApp, current: Current) -> None:
        """Wrap an app.

        Args:
            app: BentoML's.
            current: Gives the runtime, or None before the service starts.
        """
        self._bentoml = app
        self._current = current
        self._api = Api(current)
        self._doors: _Doors | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._pass_on(scope, receive, send)
            return
        headers = Headers(scope=scope)
        note = Note(request_id(headers.get("x-request-id")))
        scope["qm9flow.note"] = note
        started, status = time.monotonic(), 500
        body = _Body(receive, is_awaited="expect" in headers)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(_REQUEST_ID, note.id.encode("ascii")), _NO_SNIFFING]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
                if status >= 400:
                    await body.drain(self._drain_bytes())
            await send(message)

        try:
            await self._answer(scope, body.receive, noting, note)
        finally:
            self._record(scope, note, status, time.monotonic() - started)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opening(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._ready_doors()  # what is wrong with the keys is said now, not to a client
            await send(message)

        try:
            await self._bentoml(scope, receive, opening)
        finally:
            if scope["type"] == "lifespan" and self._doors is not None:
                self._doors.guard.close()
                self._doors.log.close()

    def _drain_bytes(self) -> int:
        runtime = self._current()
        return DRAIN_FACTOR * (runtime.settings.max_body_bytes if runtime else 0)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, note: Note) -> None:
        try:
            self._admit(scope, note)
        except RequestError as error:
            await refusal(error, note)(scope, receive, send)
            return
        await self._api.app(scope, receive, send)

    def _admit(self, scope: Scope, note: Note) -> None:
        path, doors = scope["path"], self._ready_doors()
        if doors is None or path in PROBE_PATHS:
            return  # no model to ask yet
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
        if not (is_open and doors.guard.has_keys):
            note.key = doors.guard.admit(scope)

    def _ready_doors(self) -> _Doors | None:
        runtime = self._current()
        if self._doors is None and runtime is not None:
            self._doors = self._open(runtime)
        return self._doors

    def _open(self, runtime: Runtime) -> _Doors:
        return _Doors(Guard(runtime.settings), AccessLog(runtime.settings.access_log))

    def _record(self, scope: Scope, note: Note, status: int, seconds: float) -> None:
        path = scope["path"]
        is_file = path.startswith(OPEN_FOLDERS)
        route = path if path in self._api.paths else "file" if is_file else "other"
        metrics.count_request(route, status, seconds)
        is_well = status < 400 or note.code in IN_PASSING
        if self._doors is None or (path in SUPERVISION and is_well):
            return
        method = scope["method"] if scope["method"] in _METHODS else "other"
        client = (scope.get("client") or (None,))[0]
        milliseconds = round(seconds * 1000, 1)
        with contextlib.suppress(ValueError):  # what no text can hold
            self._doors.log.write(
                line_of(
                    note, method=method, route=route, status=status, ms=milliseconds, client=client
                )
            )


class _Body:
    """The body of one request, which a refusal leaves unread."""

    def __init__(self, receive: Receive, is_awaited: bool) -> None:
        self._receive = receive
        self._is_at_end = is_awaited  # such a client sends nothing before it is asked to

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_at_end = not message.get("more_body", False)
        return message

    async def drain(self, limit: int) -> None:
        """Read what the client still sends, for a while, and drop it."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._is_at_end and size <= limit:
                    size += len((await self.receive()).get("body", b""))
