"""The schemas of bodies: requests, answers, and what supervisors are told."""

from qm9flow.config import ServeConfig
from serving.openapi.answer_schemas import answer_schemas
from serving.openapi.parts import Json, object_of, ref
from serving.openapi.request_schemas import request_schemas


def schemas(settings: ServeConfig) -> Json:
    """All of them.

    Args:
        settings: Whose limits to state.

    Returns:
        Schema by name.
    """
    text = {"type": "string"}
    return {
        **request_schemas(settings),
        **answer_schemas(),
        "Error": object_of(
            {"error": object_of({"code": text, "message": text, "request_id": text})}
        ),
        "Alive": object_of({"status": {"type": "string", "enum": ["alive"]}}),
        "Ready": object_of(
            {
                "status": {"type": "string", "enum": ["ready"]},
                "model": ref("ModelName"),
                "provider": object_of(
                    {
                        "required": {"type": "string", "enum": ["auto", "cpu", "cuda"]},
                        "active": {"type": "string", "enum": ["cpu", "cuda"]},
                    }
                ),
            }
        ),
        "Description": {"type": "object"},
    }
