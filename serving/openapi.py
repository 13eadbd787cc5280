"""The OpenAPI description, as `/docs.json` gives it: written by hand, held true by tests."""

import inspect
from typing import Any, get_args

import qm9flow
from qm9flow.config import ServeConfig
from qm9flow.errors import MoleculeError
from qm9flow.molecules.molecule import Geometry
from qm9flow.properties import PROPERTIES, TARGETS, Origin
from serving.requests import INCLUDABLE

HYDROGEN = """hydrogen
  example

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 H   0  0
    0.0000    0.0000    0.7414 H   0  0
  1  2  1  0
M  END
"""
WATER = "3\nwater\nO 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692"

Json = dict[str, Any]


def molecule_codes() -> list[str]:
    """Codes of a refused molecule: those of the error tree.

    Returns:
        In alphabetical order.
    """
    return sorted(kind.code for kind in _molecule_errors())


def _molecule_errors() -> tuple[type[MoleculeError], ...]:
    return (MoleculeError, *MoleculeError.__subclasses__())


def _code_schema() -> Json:
    meanings = {kind.code: inspect.getdoc(kind) or "" for kind in _molecule_errors()}
    meanings[MoleculeError.code] = "The model could not be run on the molecule."
    codes = molecule_codes()
    lines = [f"- `{code}`: {meanings[code].splitlines()[0]}" for code in codes]
    return {"type": "string", "enum": codes, "description": "\n".join(lines)}


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
        "paths": {
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
            "/livez": {"get": _get("livez", "The process answers", "Alive", can_fail=False)},
            "/readyz": {"get": _get("readyz", "The model is loaded and warm", "Ready")},
            "/metrics": {"get": _metrics()},
            "/docs.json": {"get": _get("docs", "This description", "Description", can_fail=False)},
        },
        "components": {
            "schemas": _schemas(settings),
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


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(name: str, examples: Json | None = None) -> Json:
    content: Json = {"schema": _ref(name)}
    if examples:
        content["examples"] = {key: {"value": value} for key, value in examples.items()}
    return {"application/json": content}


_KEYS: list[Json] = [{"bearer": []}, {"header": []}, {}]
"""A key in either header; none where the service has no keys."""

_HEADERS = {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}}
_RETRY = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}


def _error(text: str, code: str, *, is_passing: bool = False) -> Json:
    example = {"error": {"code": code, "message": "what was wrong", "request_id": "6f2a"}}
    return {
        "description": text,
        "headers": {**_HEADERS, **(_RETRY if is_passing else {})},
        "content": _content("Error", {code: example}),
    }


def _refusals() -> Json:
    return {
        "401": _error("`unauthorized`: the service has keys, and this is none", "unauthorized"),
        "403": _error(
            "`no_keys`: the service has none, so it answers on the loopback address alone",
            "no_keys",
        ),
    }


def _success(text: str, content: Json) -> Json:
    return {"description": text, "headers": _HEADERS, "content": content}


def _get(
    name: str, text: str, schema: str, *, can_fail: bool = True, needs_key: bool = False
) -> Json:
    responses = {"200": _success(text, _content(schema))}
    if can_fail:
        responses["503"] = _error(
            "`not_ready`: the model is being loaded; `failed`: it cannot be; `stopping`: the "
            "service is about to end",
            "not_ready",
            is_passing=True,
        )
    operation: Json = {"operationId": name, "tags": ["operation"], "summary": text}
    if needs_key:
        responses |= _refusals()
        operation["security"] = _KEYS
    return operation | {"responses": responses}


def _metrics() -> Json:
    text = "Prometheus metrics"
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "tags": ["operation"],
        "summary": text,
        "security": _KEYS,
        "responses": {"200": _success(text, content), **_refusals()},
    }


def _request_examples() -> Json:
    return {
        "smiles": {"molecules": [{"smiles": "CCO"}], "targets": ["gap", "homo"]},
        "xyz": {"molecules": [{"xyz": WATER}], "targets": ["mu", "alpha"]},
        "sdf": {"molecules": [{"sdf": HYDROGEN, "geometry": "approximate"}]},
        "arrays": {
            "molecules": [
                {
                    "numbers": [1, 1],
                    "positions": [[0, 0, 0], [0, 0, 0.74]],
                    "geometry": "approximate",
                }
            ]
        },
        "mixed": {
            "molecules": [{"xyz": WATER}, {"smiles": "CCO"}, {"smiles": "C1CC"}],
            "targets": ["gap", "homo"],
        },
    }


def _answer_example() -> Json:
    broken = {"code": "invalid_smiles", "message": "not a SMILES: unclosed ring"}
    return {
        "model": {"name": "qm9flow", "version": 1, "alias": "champion", "provider": "cpu"},
        "units": {"gap": "eV"},
        "level": None,
        "results": [
            {
                "ok": True,
                "values": {"gap": 9.758},
                "intervals": {"gap": None},
                "domain": {"inside": None, "score": None, "reasons": []},
                "geometry": {"source": "dft", "conformers": 1},
                "warnings": [],
            },
            {"ok": False, "error": broken},
        ],
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
        "security": _KEYS,
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
            "content": _content("PredictRequest", _request_examples()),
        },
        "responses": _responses(
            settings,
            _content("Answer", {"two": _answer_example()}),
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
        "security": _KEYS,
        "requestBody": {"required": True, "content": _content("DrawRequest", examples)},
        "responses": _responses(
            settings, _content("Drawings"), "`bad_request` or `too_many_molecules`"
        ),
    }


def _responses(settings: ServeConfig, content: Json, refusals: str) -> Json:
    return {
        "200": _success("One result a molecule, in order", content),
        "400": _error(refusals, "bad_request"),
        **_refusals(),
        "413": _error(
            f"`body_too_large`: more than {settings.max_body_bytes:,} bytes", "body_too_large"
        ),
        "415": _error(
            "`unsupported_media_type`: the body is not said to be JSON",
            "unsupported_media_type",
        ),
        "500": _error("`internal`: the service failed", "internal"),
        "503": _error(
            "`not_ready` or `busy`: try again after `Retry-After` seconds; `failed`: the model "
            "cannot be loaded",
            "busy",
            is_passing=True,
        ),
        "504": _error(f"`timeout`: no answer within {settings.request_seconds:g} s", "timeout"),
    }


def _object(properties: Json, required: list[str] | None = None, **more: Any) -> Json:
    names = list(properties) if required is None else required
    return {
        "type": "object",
        "properties": properties,
        **({"required": names} if names else {}),  # an empty list is no OpenAPI
        "additionalProperties": False,
        **more,
    }


def _schemas(settings: ServeConfig) -> Json:
    text = {"type": "string"}
    return {
        **_request_schemas(settings),
        **_answer_schemas(),
        "Error": _object({"error": _object({"code": text, "message": text, "request_id": text})}),
        "Alive": _object({"status": {"type": "string", "enum": ["alive"]}}),
        "Ready": _object(
            {
                "status": {"type": "string", "enum": ["ready"]},
                "model": _ref("ModelName"),
                "provider": _object(
                    {
                        "required": {"type": "string", "enum": ["auto", "cpu", "cuda"]},
                        "active": {"type": "string", "enum": ["cpu", "cuda"]},
                    }
                ),
            }
        ),
        "Description": {"type": "object"},
    }


def _request_schemas(settings: ServeConfig) -> Json:
    geometry = {
        "type": "string",
        "enum": ["dft", "approximate"],
        "description": "dft: a minimum of B3LYP/6-31G(2df,p), as in QM9",
    }
    text = {"type": "string"}
    position = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    numbers = {
        "type": "array",
        "items": {"type": "integer", "enum": [1, 6, 7, 8, 9]},
        "minItems": 1,
        "maxItems": settings.max_atoms,
        "description": "Atomic numbers",
    }
    positions = {
        "type": "array",
        "items": position,
        "minItems": 1,
        "maxItems": settings.max_atoms,
        "description": "Positions in angstrom",
    }
    return {
        "PredictRequest": _object(
            {
                "molecules": {
                    "type": "array",
                    "items": _ref("Molecule"),
                    "maxItems": settings.max_molecules,
                },
                "targets": {
                    "type": "array",
                    "items": {"type": "string", "enum": list(TARGETS)},
                    "minItems": 1,
                    "nullable": True,
                    "description": "Left out: all of them",
                },
                "include": {
                    "type": "array",
                    "items": {"type": "string", "enum": list(INCLUDABLE)},
                    "nullable": True,
                    "description": "positions: atoms and positions of each result's geometry",
                },
            },
            ["molecules"],
        ),
        "DrawRequest": _object(
            {
                "molecules": {
                    "type": "array",
                    "items": _ref("Molecule"),
                    "maxItems": settings.max_molecules,
                }
            }
        ),
        "Molecule": {
            "oneOf": [_ref("Smiles"), _ref("Xyz"), _ref("Sdf"), _ref("Arrays")],
            "description": "A molecule of H, C, N, O and F without net charge",
        },
        "Smiles": _object(
            {"smiles": text}, description="A geometry is made by RDKit: ETKDGv3, then MMFF94"
        ),
        "Xyz": _object({"xyz": text, "geometry": {**geometry, "default": "dft"}}, ["xyz"]),
        "Sdf": _object(
            {"sdf": text, "geometry": {**geometry, "default": "approximate"}},
            ["sdf"],
            description="One mol block (V2000 or V3000) with explicit hydrogens",
        ),
        "Arrays": _object(
            {
                "numbers": numbers,
                "positions": positions,
                "geometry": {**geometry, "default": "dft"},
            },
            ["numbers", "positions"],
        ),
    }


def _answer_schemas() -> Json:
    text = {"type": "string"}
    identity: Json = {
        "name": text,
        "version": {"type": "integer", "nullable": True},
        "alias": {"type": "string", "nullable": True},
        "provider": {"type": "string", "enum": ["cpu", "cuda"]},
    }
    units = {item.name: {"type": "string", "enum": [item.unit]} for item in PROPERTIES}
    return {
        "Answer": _object(
            {
                "model": _ref("ModelName"),
                "units": _ref("Units"),
                "level": {
                    "type": "number",
                    "nullable": True,
                    "description": "Share of true values that lie inside their intervals",
                },
                "results": {"type": "array", "items": _ref("Result")},
            }
        ),
        "ModelName": _object(identity),
        "Model": _model_schema(identity),
        "Target": _object(
            {
                "name": text,
                "description": text,
                "unit": text,
                "origin": {"type": "string", "enum": list(get_args(Origin))},
                "chemical_accuracy": {"type": "number", "nullable": True},
            }
        ),
        "Units": _object(units, []),
        "Drawings": _object({"results": {"type": "array", "items": _ref("Drawing")}}),
        "Drawing": {
            "oneOf": [
                _object({"ok": {"type": "boolean", "enum": [True]}, "svg": text}),
                _ref("Failure"),
            ]
        },
        "Result": {"oneOf": [_ref("Success"), _ref("Failure")]},
        "Success": _success_schema(),
        "Failure": _object(
            {
                "ok": {"type": "boolean", "enum": [False]},
                "error": _object({"code": _code_schema(), "message": text}),
            }
        ),
    }


def _model_schema(identity: Json) -> Json:
    text = {"type": "string"}
    moment: Json = {"type": "string", "format": "date-time"}
    return _object(
        {
            **identity,
            "provider_required": {"type": "string", "enum": ["auto", "cpu", "cuda"]},
            "since": {**moment, "description": "When this model was opened"},
            "units": _ref("Units"),
            "targets": {"type": "array", "items": _ref("Target")},
            "training": {"type": "object", "description": "Data, split, errors, code"},
            "limits": {"type": "object", "additionalProperties": {"type": "number"}},
            "watch": _object(
                {
                    "alias": text,
                    "asked": {**moment, "nullable": True},
                    "unanswered_since": {**moment, "nullable": True},
                },
                nullable=True,
                description=(
                    "The alias that the service follows, when the registry last said where it "
                    "points, and since when it has not answered; null for a model that stays"
                ),
            ),
            "next": _object(
                {
                    "version": {"type": "integer"},
                    "error": _object({"code": text, "message": text}),
                    "tries": {"type": "integer", "minimum": 1},
                },
                nullable=True,
                description="The version that the alias points at and that cannot be loaded",
            ),
        }
    )


def _success_schema() -> Json:
    text = {"type": "string"}
    values = {
        item.name: {
            "type": "number",
            "nullable": True,
            "description": f"{item.description}, {item.unit}",
        }
        for item in PROPERTIES
    }
    interval = {
        "type": "array",
        "nullable": True,
        "minItems": 2,
        "maxItems": 2,
        "items": {"type": "number"},
    }
    return _object(
        {
            "ok": {"type": "boolean", "enum": [True]},
            "values": _object(
                values,
                [],
                description=(
                    "null where there is none: rotational constants of atoms, A of linear molecules"
                ),
            ),
            "intervals": _object(
                {item.name: interval for item in PROPERTIES},
                [],
                description="lower and upper end, in the target's unit; null where none",
            ),
            "domain": _object(
                {
                    "inside": {
                        "type": "boolean",
                        "nullable": True,
                        "description": "null where only the size was looked at",
                    },
                    "score": {
                        "type": "number",
                        "nullable": True,
                        "description": "0.5 is ordinary, below 0.01 strange",
                    },
                    "reasons": {"type": "array", "items": text},
                }
            ),
            "geometry": _object(
                {
                    "source": {"type": "string", "enum": list(get_args(Geometry))},
                    "conformers": {"type": "integer", "minimum": 1},
                    "numbers": {
                        "type": "array",
                        "items": {"type": "integer"},
                        "description": "Atomic numbers, where positions were asked for",
                    },
                    "positions": {
                        "type": "array",
                        "items": {"type": "array", "items": {"type": "number"}},
                        "description": "Angstrom; of conformers the lowest",
                    },
                },
                ["source", "conformers"],
            ),
            "warnings": {"type": "array", "items": text},
        }
    )
