"""The schemas of what is sent: molecules in their four forms, and what is wanted of them."""

from qm9flow.config import ServeConfig
from qm9flow.properties import TARGETS
from serving.openapi.parts import Json, object_of, ref
from serving.requests import INCLUDABLE


def request_schemas(settings: ServeConfig) -> Json:
    """Bodies of requests and their parts.

    Args:
        settings: Whose limits to state.

    Returns:
        Schema by name.
    """
    return {**_bodies(settings), **_molecules(settings)}


def _bodies(settings: ServeConfig) -> Json:
    molecules = {"type": "array", "items": ref("Molecule"), "maxItems": settings.max_molecules}
    return {
        "PredictRequest": object_of(
            {
                "molecules": molecules,
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
        "DrawRequest": object_of({"molecules": molecules}),
    }


def _molecules(settings: ServeConfig) -> Json:
    """A molecule in its four forms."""
    geometry = {
        "type": "string",
        "enum": ["dft", "approximate"],
        "description": "dft: a minimum of B3LYP/6-31G(2df,p), as in QM9",
    }
    text = {"type": "string"}
    return {
        "Molecule": {
            "oneOf": [ref("Smiles"), ref("Xyz"), ref("Sdf"), ref("Arrays")],
            "description": "A molecule of H, C, N, O and F without net charge",
        },
        "Smiles": object_of(
            {"smiles": text}, description="A geometry is made by RDKit: ETKDGv3, then MMFF94"
        ),
        "Xyz": object_of({"xyz": text, "geometry": {**geometry, "default": "dft"}}, ["xyz"]),
        "Sdf": object_of(
            {"sdf": text, "geometry": {**geometry, "default": "approximate"}},
            ["sdf"],
            description="One mol block (V2000 or V3000) with explicit hydrogens",
        ),
        "Arrays": object_of(
            {**_arrays(settings.max_atoms), "geometry": {**geometry, "default": "dft"}},
            ["numbers", "positions"],
        ),
    }


def _arrays(max_atoms: int) -> Json:
    position = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}
    return {
        "numbers": {
            "type": "array",
            "items": {"type": "integer", "enum": [1, 6, 7, 8, 9]},
            "minItems": 1,
            "maxItems": max_atoms,
            "description": "Atomic numbers",
        },
        "positions": {
            "type": "array",
            "items": position,
            "minItems": 1,
            "maxItems": max_atoms,
            "description": "Positions in angstrom",
        },
    }
