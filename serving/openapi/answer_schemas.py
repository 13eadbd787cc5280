"""The schemas of what is answered: results one by one, and the model that they are of."""

import inspect
from typing import get_args

from qm9flow.errors import MoleculeError
from qm9flow.molecules.molecule import Geometry
from qm9flow.properties import PROPERTIES, Origin
from serving.openapi.parts import Json, object_of, ref


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


def answer_schemas() -> Json:
    """Bodies of answers and their parts.

    Returns:
        Schema by name.
    """
    text = {"type": "string"}
    identity: Json = {
        "name": text,
        "version": {"type": "integer", "nullable": True},
        "alias": {"type": "string", "nullable": True},
        "provider": {"type": "string", "enum": ["cpu", "cuda"]},
    }
    units = {item.name: {"type": "string", "enum": [item.unit]} for item in PROPERTIES}
    return {
        "Answer": object_of(
            {
                "model": ref("ModelName"),
                "units": ref("Units"),
                "level": {
                    "type": "number",
                    "nullable": True,
                    "description": "Share of true values that lie inside their intervals",
                },
                "results": {"type": "array", "items": ref("Result")},
            }
        ),
        "ModelName": object_of(identity),
        "Model": _model_schema(identity),
        "Target": object_of(
            {
                "name": text,
                "description": text,
                "unit": text,
                "origin": {"type": "string", "enum": list(get_args(Origin))},
                "chemical_accuracy": {"type": "number", "nullable": True},
            }
        ),
        "Units": object_of(units, []),
        "Drawings": object_of({"results": {"type": "array", "items": ref("Drawing")}}),
        "Drawing": {
            "oneOf": [
                object_of({"ok": {"type": "boolean", "enum": [True]}, "svg": text}),
                ref("Failure"),
            ]
        },
        "Result": {"oneOf": [ref("Success"), ref("Failure")]},
        "Success": _success_schema(),
        "Failure": object_of(
            {
                "ok": {"type": "boolean", "enum": [False]},
                "error": object_of({"code": _code_schema(), "message": text}),
            }
        ),
    }


def _model_schema(identity: Json) -> Json:
    text = {"type": "string"}
    moment: Json = {"type": "string", "format": "date-time"}
    return object_of(
        {
            **identity,
            "provider_required": {"type": "string", "enum": ["auto", "cpu", "cuda"]},
            "since": {**moment, "description": "When this model was opened"},
            "units": ref("Units"),
            "targets": {"type": "array", "items": ref("Target")},
            "training": {"type": "object", "description": "Data, split, errors, code"},
            "limits": {"type": "object", "additionalProperties": {"type": "number"}},
            "watch": object_of(
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
            "next": object_of(
                {
                    "version": {"type": "integer"},
                    "error": object_of({"code": text, "message": text}),
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
    return object_of(
        {
            "ok": {"type": "boolean", "enum": [True]},
            "values": object_of(
                values,
                [],
                description=(
                    "null where there is none: rotational constants of atoms, A of linear molecules"
                ),
            ),
            "intervals": object_of(
                {item.name: interval for item in PROPERTIES},
                [],
                description="lower and upper end, in the target's unit; null where none",
            ),
            "domain": object_of(
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
            "geometry": object_of(
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
                        "description": "Angstrom; of conformers the likeliest, which A, B and C "
                        "are of",
                    },
                    "refined": {
                        "type": "boolean",
                        "description": "With positions: whether the model refined them to DFT's; "
                        "else they are as given, or as a force field has them",
                    },
                },
                ["source", "conformers"],
            ),
            "warnings": {"type": "array", "items": text},
        }
    )
