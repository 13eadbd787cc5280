"""The whole description, as `/docs.json` gives it."""

import qm9flow
from qm9flow.config import ServeConfig
from serving.openapi.parts import Json
from serving.openapi.paths import paths
from serving.openapi.schemas import schemas


def document(settings: ServeConfig) -> Json:
    """The description.

    Args:
        settings: Whose limits to state.

    Returns:
        An OpenAPI 3.0 document.
    """
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "qm9flow",
            "version": qm9flow.__version__,
            "license": {"name": "MIT"},
            "description": (
                "Nineteen molecular properties as B3LYP/6-31G(2df,p) gives them in QM9, predicted "
                "by a graph neural network from elements and geometry. Every answer has a header "
                "`X-Request-ID`, by which the service's log knows it: the client's own if it sent "
                "one of at most 64 letters, digits and `._:-`."
            ),
        },
        "servers": [{"url": "."}],
        "tags": [
            {"name": "prediction", "description": "What the service is for"},
            {"name": "operation", "description": "What those ask who keep it running"},
        ],
        "paths": paths(settings),
        "components": {
            "schemas": schemas(settings),
            "headers": {
                "X-Request-ID": {
                    "description": "By which the service's log knows the request",
                    "schema": {"type": "string"},
                },
                "Retry-After": {
                    "description": "Seconds after which trying again makes sense",
                    "schema": {"type": "integer"},
                },
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }
