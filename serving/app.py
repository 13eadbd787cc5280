"""The HTTP side: explicit routes, limits, one error shape. Nothing here computes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
from bentoml._internal import server as bentoml_server
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive

from qm9flow.config import ServeConfig
from serving import drawings, metrics, pages
from serving.batching import Call, CallOverError
from serving.encoding import encode
from serving.engine import Engine
from serving.load import Load
from serving.openapi.document import document
from serving.requests import Note, RequestError, error_body
from serving.runtime import Runtime

_JSON_TYPES = (
    "",
    "application/json",
    "text/plain",
    "application/x-www-form-urlencoded",  # what curl -d says when not told otherwise
)
_SWAGGER = Path(bentoml_server.__file__).parent / "static_content"
_CODES = {404: "not_found", 405: "method_not_allowed"}

Current = Callable[[], Runtime | None]
Work = Callable[[Engine, bytes, Call, Note], bytes]


class Api:
    """The routes and what they share."""

    def __init__(self, current: Current) -> None:
        """Routes of a service.

        Args:
            current: Gives the runtime, or None before the service starts.
        """
        self._current = current
        self._load: Load | None = None
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
                Mount("/static_content", StaticFiles(directory=_SWAGGER)),
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
        return await self._work(request, lambda engine, *asked: engine.respond(*asked))

    async def draw(self, request: Request) -> Response:
        """Draw molecules."""
        return await self._work(request, drawings.respond)

    async def _work(self, request: Request, respond: Work) -> Response:
        engine, note = self._engine(), _note(request)
        settings = engine.settings
        load = self._loaded(settings)
        _refuse_other_types(request)
        load.refuse_if_full()
        call = Call(settings.request_seconds)
        try:
            async with asyncio.timeout(settings.request_seconds):
                with load.body() as hold:
                    body = await _read_body(request, settings.max_body_bytes, hold)
                    with load.request():
                        async with _noticing_the_end(request.receive, call):
                            answer = await anyio.to_thread.run_sync(
                                respond,
                                engine,
                                body,
                                call,
                                note,
                                abandon_on_cancel=True,
                                limiter=load.limiter,
                            )
        except (CallOverError, TimeoutError) as error:
            if call.is_given_up:
                raise RequestError(499, "client_gone", "nobody waits for this answer") from error
            raise RequestError(
                504,
                "timeout",
                f"no answer within {settings.request_seconds:g} s: send fewer molecules",
            ) from error
        finally:
            call.give_up()
        return Response(answer, media_type="application/json")

    async def model(self, request: Request) -> Response:
        """Say what answers."""
        engine = self._engine()
        runtime = self._current()
        answering = engine.describe()  # before what failed: a swap forgets that and then answers
        return _json(answering | (runtime.describe() if runtime else {}))

    async def livez(self, request: Request) -> Response:
        """The process answers."""
        return _json({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """The model is loaded, warm, and where it must be."""
        engine = self._engine()
        runtime = self._current()
        if runtime is not None and runtime.is_stopping:
            raise RequestError(503, "stopping", "the service is about to end: ask another one")
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
        runtime = self._current()
        if runtime is not None and runtime.engine is not None:
            load = self._loaded(runtime.settings)
            metrics.set_waiting(runtime.engine.waiting(), load.requests)
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

    def _loaded(self, settings: ServeConfig) -> Load:
        if self._load is None:  # it belongs to the running event loop
            self._load = Load(settings)
        return self._load


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(value), status, headers, media_type="application/json")


def _note(request: Request) -> Note:
    note: Note = request.scope["qm9flow.note"]
    return note


def refusal(error: RequestError, note: Note) -> Response:
    """The answer to a request that gets none.

    Args:
        error: Why.
        note: Of the request.

    Returns:
        The one shape of an error.
    """
    metrics.count_error(error.code)
    note.code = error.code
    headers = {}
    if error.retry_after_s:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="qm9flow"'
    return _json(error_body(error.code, error.message, note.id), error.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return refusal(error, _note(request))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "bad_request")
    message = f"{error.detail}: the routes are described at /docs.json"
    answer = refusal(RequestError(error.status_code, code, message), _note(request))
    answer.headers.update(error.headers or {})
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    return refusal(
        RequestError(500, "internal", "the service failed; its log says why"), _note(request)
    )


@contextlib.asynccontextmanager
async def _noticing_the_end(receive: Receive, call: Call) -> AsyncIterator[None]:
    """While the block runs: what a client that has gone away asked for is no longer computed."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        call.give_up()

    listening = asyncio.ensure_future(listen())
    try:
        yield
    finally:
        listening.cancel()


def _refuse_other_types(request: Request) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in _JSON_TYPES and not kind.endswith("+json"):
        raise RequestError(415, "unsupported_media_type", "send JSON, as application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "unsupported_media_type", "send the body uncompressed")


async def _read_body(request: Request, limit: int, hold: Callable[[int], None]) -> bytes:
    too_large = RequestError(
        413,
        "body_too_large",
        f"the body is larger than the limit of {limit:,} bytes: send several requests",
    )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            if len(body) + len(chunk) > limit:
                raise too_large
            hold(len(chunk))
            body += chunk
    except ClientDisconnect as error:
        raise RequestError(400, "bad_request", "the body ended early") from error
    return bytes(body)
