"""`POST /draw`: molecules as drawings in two dimensions."""

from typing import Any

from qm9flow.errors import MoleculeError
from qm9flow.inference.prediction import entry
from serving.batching import Call
from serving.encoding import encode_results
from serving.engine import Engine
from serving.requests import Note, read_drawing_request


def respond(engine: Engine, body: bytes, call: Call, note: Note) -> bytes:
    """Answer a request for drawings.

    Args:
        engine: Its processes draw, within its limits.
        body: As it came in.
        call: Says how long the answer is wanted.
        note: Is told how it went.

    Returns:
        The answer's body, JSON.

    Raises:
        RequestError: The request as a whole is refused.
        CallOverError: It was not done in time.
    """
    records = read_drawing_request(body, engine.settings.max_molecules)
    note.molecules = len(records)
    drawn = engine.draw(records, call)
    note.failed = sum(isinstance(item, MoleculeError) for item in drawn)
    return encode_results({}, [_entry(item) for item in drawn])


def _entry(item: str | MoleculeError) -> dict[str, Any]:
    return entry(item) if isinstance(item, MoleculeError) else {"ok": True, "svg": item}
