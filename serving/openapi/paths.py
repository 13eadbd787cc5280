"""The operations: what may be asked, and what is answered."""

from qm9flow.config import ServeConfig
from serving.openapi.examples import WATER, answer_example, request_examples
from serving.openapi.parts import Json, content
from serving.openapi.responses import KEYS, error, refusals, success, without_keys


def paths(settings: ServeConfig) -> Json:
    """All of them.

    Args:
        settings: Whose limits to state.

    Returns:
        Operations by path.
    """
    return {
        "/predict": {"post": _predict(settings)},
        "/draw": {"post": _draw(settings)},
        "/model": {
            "get": _get(
                "model",
                "What answers: name, version, provider, units, limits, what comes next",
                "Model",
                needs_key=True,
            )
        },
        "/livez": {
            "get": _get("livez", "The process answers", "Alive", can_fail=False, is_for_all=True)
        },
        "/readyz": {"get": _get("readyz", "The model is loaded and warm", "Ready")},
        "/metrics": {"get": _metrics()},
        "/docs.json": {"get": _get("docs", "This description", "Description", can_fail=False)},
    }


def _predict(settings: ServeConfig) -> Json:
    return {
        "operationId": "predict",
        "tags": ["prediction"],
        "summary": "Predict molecules",
        "description": (
            "One result a molecule, in their order. Each molecule is judged by itself: a bad one "
            "has its own error and never spoils the others; if all are bad the status is still "
            "200. `model` names the version that computed all results of the answer."
        ),
        "security": KEYS,
        "parameters": [
            {
                "name": "X-Request-ID",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "maxLength": 64},
                "description": "What to call the request in the answer and in the log",
            }
        ],
        "requestBody": {
            "required": True,
            "content": content("PredictRequest", request_examples()),
        },
        "responses": _responses(
            settings,
            content("Answer", {"two": answer_example()}),
            "`bad_request`, `unknown_target` or `too_many_molecules`",
        ),
    }


def _draw(settings: ServeConfig) -> Json:
    examples = {"mixed": {"molecules": [{"smiles": "CCO"}, {"xyz": WATER}, {"smiles": "C1CC"}]}}
    return {
        "operationId": "draw",
        "tags": ["prediction"],
        "summary": "Draw molecules in two dimensions",
        "description": (
            "One SVG document a molecule, in their order, or why there is none. A SMILES or a mol "
            "block is drawn whatever its elements and charge; bonds of a geometry are perceived "
            "from its distances."
        ),
        "security": KEYS,
        "requestBody": {"required": True, "content": content("DrawRequest", examples)},
        "responses": _responses(
            settings, content("Drawings"), "`bad_request` or `too_many_molecules`"
        ),
    }


def _get(
    name: str,
    text: str,
    schema: str,
    *,
    can_fail: bool = True,
    needs_key: bool = False,
    is_for_all: bool = False,
) -> Json:
    responses = {"200": success(text, content(schema))}
    if not is_for_all:
        responses |= without_keys()
    if can_fail:
        responses["503"] = error(
            "`not_ready`: the model is being loaded; `failed`: it cannot be; `stopping`: the "
            "service is about to end",
            "not_ready",
            is_passing=True,
        )
    operation: Json = {"operationId": name, "tags": ["operation"], "summary": text}
    if needs_key:
        responses |= refusals()
        operation["security"] = KEYS
    return operation | {"responses": responses}


def _metrics() -> Json:
    text = "Prometheus metrics"
    body = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "tags": ["operation"],
        "summary": text,
        "security": KEYS,
        "responses": {"200": success(text, body), **refusals()},
    }


def _responses(settings: ServeConfig, body: Json, refused: str) -> Json:
    return {
        "200": success("One result a molecule, in order", body),
        "400": error(refused, "bad_request"),
        **refusals(),
        "413": error(
            f"`body_too_large`: more than {settings.max_body_bytes:,} bytes", "body_too_large"
        ),
        "415": error(
            "`unsupported_media_type`: the body is not said to be JSON",
            "unsupported_media_type",
        ),
        "500": error("`internal`: the service failed", "internal"),
        "503": error(
            "`not_ready` or `busy`: try again after `Retry-After` seconds; `failed`: the model "
            "cannot be loaded",
            "busy",
            is_passing=True,
        ),
        "504": error(f"`timeout`: no answer within {settings.request_seconds:g} s", "timeout"),
    }
