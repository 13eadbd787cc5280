"""What an operation may answer, and the key that it may need."""

from serving.openapi.parts import Json, content

KEYS: list[Json] = [{"bearer": []}, {"header": []}, {}]
"""A key in either header; none where the service has no keys."""

_HEADERS = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
_RETRY = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}


def success(text: str, body: Json) -> Json:
    """The answer to a request that is served.

    Args:
        text: What it is.
        body: From `content`, or of another type than JSON.

    Returns:
        The response.
    """
    return {"description": text, "headers": _HEADERS, "content": body}


def error(text: str, code: str, *, is_passing: bool = False) -> Json:
    """The answer to a request that is not served.

    Args:
        text: When it is given.
        code: The one of its example.
        is_passing: Whether trying again makes sense.

    Returns:
        The response.
    """
    example = {"error": {"code": code, "message": "what was wrong", "request_id": "6f2a"}}
    return {
        "description": text,
        "headers": {**_HEADERS, **(_RETRY if is_passing else {})},
        "content": content("Error", {code: example}),
    }


def refusals() -> Json:
    """The answers at the door.

    Returns:
        Response by status.
    """
    return {
        "401": error("`unauthorized`: the service has keys, and this is none", "unauthorized"),
        **without_keys(),
    }


def without_keys() -> Json:
    """The answer at the door of a service that has no keys.

    Returns:
        Response by status.
    """
    text = "`no_keys`: the service has none, so it answers localhost alone"
    return {"403": error(text, "no_keys")}
