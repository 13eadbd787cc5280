"""The HTTP side: explicit routes, limits, one error shape. Nothing here computes."""

import asyncio
import time
from collections.abc import Callable

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qm9flow.config import ServeConfig
from serving import drawings, metrics, pages
from serving.engine import Engine, Runtime
from serving.openapi import document
from serving.requests import RequestError, encode, error_body

THREADS = 8
"""Requests worked on at a time: reading, waiting for geometries, predicting."""

DRAIN_FACTOR = 8
"""A body too large is read on, and dropped, up to this many times the limit: most clients listen
only after they have said everything."""

_JSON_TYPES = (
    "",
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",  # what curl -d says when not told otherwise
)
_BENTOML_FOLDER = "/static_content/"
_CODES = {404: "not_found", 405: "method_not_allowed"}

Current = Callable[[], Runtime | None]
Work = Callable[[Engine, bytes], bytes]


class Api:
    """The routes and what they share."""

    def __init__(self, current: Current) -> None:
        """Routes of a service.

        Args:
            current: Gives the runtime, or None before the service starts.
        """
        self._current = current
        self._under_way = 0
        self._limiter: anyio.CapacityLimiter | None = None
        self.app = Starlette(
            routes=[
                *pages.routes(),
                Route("/predict", self.predict, methods=["POST"]),
                Route("/draw", self.draw, methods=["POST"]),
                Route("/model", self.model),
                Route("/livez", self.livez),
                Route("/healthz", self.livez),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
                Route("/docs.json", self.docs),
            ],
            exception_handlers={
                RequestError: _refused,
                HTTPException: _no_route,
                Exception: _failed,
            },
        )
        self.app.router.redirect_slashes = False
        self.paths = frozenset(route.path for route in self.app.routes if isinstance(route, Route))

    async def predict(self, request: Request) -> Response:
        """Predict molecules."""
        return await self._work(request, lambda engine, body: engine.respond(body))

    async def draw(self, request: Request) -> Response:
        """Draw molecules."""
        return await self._work(request, drawings.respond)

    async def _work(self, request: Request, respond: Work) -> Response:
        engine = self._engine()
        settings = engine.settings
        _refuse_other_types(request)
        if self._under_way >= settings.max_requests:
            raise RequestError(503, "busy", "too many requests are waiting: try again", 1)
        self._under_way += 1
        try:
            async with asyncio.timeout(settings.request_seconds):
                body = await _read_body(request, settings.max_body_bytes)
                answer = await anyio.to_thread.run_sync(
                    respond, engine, body, abandon_on_cancel=True, limiter=self._threads()
                )
        except TimeoutError as error:
            raise RequestError(
                504,
                "timeout",
                f"no answer within {settings.request_seconds:g} s: send fewer molecules",
            ) from error
        finally:
            self._under_way -= 1
        return Response(answer, media_type="application/json")

    async def model(self, request: Request) -> Response:
        """Say what answers."""
        return _json(self._engine().describe())

    async def livez(self, request: Request) -> Response:
        """The process answers."""
        return _json({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """The model is loaded, warm, and where it must be."""
        engine = self._engine()
        return _json(
            {
                "status": "ready",
                "model": engine.identity(),
                "provider": {
                    "required": engine.predictor.session.requested,
                    "active": engine.predictor.provider,
                },
            }
        )

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics."""
        text, content_type = await anyio.to_thread.run_sync(metrics.render)
        return Response(text, headers={"Content-Type": content_type})

    async def docs(self, request: Request) -> Response:
        """The OpenAPI description."""
        runtime = self._current()
        return _json(document(runtime.settings if runtime else ServeConfig()))

    def _engine(self) -> Engine:
        runtime = self._current()
        if runtime is None or runtime.status == "loading":
            raise RequestError(503, "not_ready", "the model is being loaded: try again", 2)
        engine = runtime.engine
        if engine is None:
            raise RequestError(
                503, "failed", "the model could not be loaded; the service's log says why"
            )
        return engine

    def _threads(self) -> anyio.CapacityLimiter:
        if self._limiter is None:  # it belongs to the running event loop
            self._limiter = anyio.CapacityLimiter(THREADS)
        return self._limiter


class Front:
    """ASGI middleware: the routes above, BentoML's static files, and nothing else.

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
        self._api = Api(current)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._bentoml(scope, receive, send)
            return
        path = scope["path"]
        is_file = path.startswith(_BENTOML_FOLDER) and scope["method"] in ("GET", "HEAD")
        app = self._bentoml if is_file else self._api.app
        started, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, noting)
        finally:
            route = path if path in self._api.paths else "other"
            metrics.count_request(route, status, time.monotonic() - started)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return _json(error_body(error.code, error.message), error.status, headers)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request")
    message = f"{error.detail}: the routes are described at /docs.json"
    return _json(error_body(code, message), error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    return _json(error_body("internal", "the service failed; its log says why"), 500)


def _refuse_other_types(request: Request) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise RequestError(415, "unsupported_media_type", "send JSON, as application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "unsupported_media_type", "send the body uncompressed")


async def _read_body(request: Request, limit: int) -> bytes:
    body, size = bytearray(), 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                body += chunk
            elif size > limit * DRAIN_FACTOR:
                break
    except ClientDisconnect as error:
        raise RequestError(400, "bad_request", "the body ended early") from error
    if size > limit:
        raise RequestError(
            413,
            "body_too_large",
            f"the body is larger than the limit of {limit:,} bytes: send several requests",
        )
    return bytes(body)
