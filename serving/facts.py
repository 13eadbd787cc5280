"""What answers say besides values: the geometry that was predicted, the targets in words."""

from collections.abc import Sequence
from typing import Any

from qm9flow.errors import MoleculeError
from qm9flow.inference.prediction import Prediction
from qm9flow.properties import PROPERTIES


def add_positions(
    entries: Sequence[dict[str, Any]], results: Sequence[Prediction | MoleculeError]
) -> None:
    """Add atoms and positions to the geometry of each entry that has values.

    Args:
        entries: Results, which are changed.
        results: What they say, in the same order; of conformers the likeliest is taken.
    """
    for item, result in zip(entries, results, strict=True):
        if isinstance(result, Prediction) and result.likeliest is not None:
            item["geometry"]["numbers"] = result.likeliest.numbers.tolist()
            item["geometry"]["positions"] = result.likeliest.positions.tolist()
            item["geometry"]["refined"] = result.likeliest.is_refined


def target_facts() -> list[dict[str, Any]]:
    """The targets in words, for those who show them to people.

    Returns:
        Name, description, unit, origin and chemical accuracy (None where there is none) of each.
    """
    return [
        {
            "name": item.name,
            "description": item.description,
            "unit": item.unit,
            "origin": item.origin,
            "chemical_accuracy": item.chemical_accuracy,
        }
        for item in PROPERTIES
    ]
