"""Pages for people: `/`, its files, the 3D viewer, and the description to try at `/docs`.

Nothing here loads anything from elsewhere, and the policies see to it.
"""

import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).resolve().parent / "page"

VIEWER_PACKAGE = "chemiscope"
VIEWER_FILE = "sphinx/static/chemiscope.min.js"
"""chemiscope carries 3Dmol.js, which its script leaves as `$3Dmol`."""

_STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_VIEWER = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-scripts"
)
"""The viewer's script writes styles of its own. It runs in a frame of no origin, so that it can
neither read the page, with the key that a user may have typed there, nor call the service."""

_SWAGGER = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICIES = {"index.html": _STRICT, "viewer.html": _VIEWER, "docs.html": _SWAGGER}
_SMALL_BYTES = 1024


@dataclass(frozen=True)
class Asset:
    """One file as it is sent.

    Attributes:
        body: Its bytes.
        compressed: The same for clients that take gzip; None where that saves nothing.
        tag: Changes with the bytes.
    """

    body: bytes
    compressed: bytes | None
    tag: str


def routes() -> Sequence[Route]:
    """The pages' routes.

    Returns:
        For `Starlette`.
    """
    return [
        Route("/", _index),
        Route("/docs", _docs),
        Route("/page/{name}", _file),
    ]


def viewer_script() -> Path | None:
    """The script of the 3D viewer.

    Returns:
        The file in the installed package, which is not imported; None where it is missing.
    """
    spec = find_spec(VIEWER_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / VIEWER_FILE
        if path.is_file():
            return path
    return None


async def _index(request: Request) -> Response:
    return await _send(request, FOLDER / "index.html")


async def _docs(request: Request) -> Response:
    """BentoML's own page reports its visitors to others; this one takes only Swagger's files."""
    return await _send(request, FOLDER / "docs.html")


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    path = viewer_script() if name == "3dmol.js" else _files().get(name)
    if path is None:
        raise HTTPException(404)
    return await _send(request, path)


@cache
def _files() -> dict[str, Path]:
    return {path.name: path for path in FOLDER.iterdir() if path.suffix in _TYPES}


async def _send(request: Request, path: Path) -> Response:
    asset = await anyio.to_thread.run_sync(_asset, path)
    headers = {
        "ETag": asset.tag,
        "Cache-Control": "no-cache",  # ask again, by tag: a new version is seen at once
        "Vary": "Accept-Encoding",
        "Referrer-Policy": "no-referrer",
    }
    if path.name in _POLICIES:
        headers["Content-Security-Policy"] = _POLICIES[path.name]
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if asset.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.compressed
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=_TYPES[path.suffix])


@cache
def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    compressed = gzip.compress(body, 6) if len(body) > _SMALL_BYTES else None
    return Asset(body, compressed, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
