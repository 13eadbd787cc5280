"""What the description is made of: references, contents, objects."""

from typing import Any

Json = dict[str, Any]


def ref(name: str) -> Json:
    """A schema by its name.

    Args:
        name: Under `components`.

    Returns:
        The reference to it.
    """
    return {"$ref": f"#/components/schemas/{name}"}


def content(name: str, examples: Json | None = None) -> Json:
    """A body in JSON.

    Args:
        name: Of its schema.
        examples: By name.

    Returns:
        What may stand under `content`.
    """
    body: Json = {"schema": ref(name)}
    if examples:
        body["examples"] = {key: {"value": value} for key, value in examples.items()}
    return {"application/json": body}


def object_of(properties: Json, required: list[str] | None = None, **more: Any) -> Json:
    """The schema of an object that has no other properties.

    Args:
        properties: Schema by name.
        required: Names that must be there; None means all of them.
        **more: More of the schema.

    Returns:
        The schema.
    """
    names = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        **({"required": names} if names else {}),  # an empty list is no OpenAPI
        "additionalProperties": False,
        **more,
    }
