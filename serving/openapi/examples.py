"""Examples of requests and answers; tests send them."""

from serving.openapi.parts import Json

HYDROGEN = """hydrogen
  example

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 H   0  0
    0.0000    0.0000    0.7414 H   0  0
  1  2  1  0
M  END
"""
WATER = "3\nwater\nO 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692"


def request_examples() -> Json:
    """Requests for predictions, one for every form of a molecule.

    Returns:
        Body by name.
    """
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


def answer_example() -> Json:
    """An answer to a good molecule and a bad one.

    Returns:
        The body.
    """
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
