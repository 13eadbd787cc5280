"""`POST /draw`: molecules as drawings in two dimensions."""

from typing import Any

from qm9flow.errors import MoleculeError
from qm9flow.molecules.parse import draw_records
from serving.engine import Engine
from serving.requests import encode, read_drawing_request


def respond(engine: Engine, body: bytes) -> bytes:
    """Answer a request for drawings.

    Args:
        engine: Its processes draw, within its limits.
        body: As it came in.

    Returns:
        The answer's body, JSON.

    Raises:
        RequestError: The request as a whole is refused.
    """
    settings = engine.settings
    records = read_drawing_request(body, settings.max_molecules)
    drawn = draw_records(records, engine.pool, budget_s=settings.geometry_seconds)
    return encode({"results": [_entry(item) for item in drawn]})


def _entry(item: str | MoleculeError) -> dict[str, Any]:
    if isinstance(item, MoleculeError):
        return {"ok": False, "error": {"code": item.code, "message": str(item)}}
    return {"ok": True, "svg": item}
