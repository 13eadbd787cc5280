"""What answers say besides values: the geometry that was predicted, the targets in words."""

from collections.abc import Sequence
from typing import Any

from qm9flow.errors import MoleculeError
from qm9flow.molecules.molecule import Conformers, Structure
from qm9flow.properties import PROPERTIES


def add_positions(
    entries: Sequence[dict[str, Any]], molecules: Sequence[Structure | MoleculeError]
) -> None:
    """Add atoms and positions to the geometry of each entry that has values.

    Args:
        entries: Results, which are changed.
        molecules: What they are of, in the same order; of conformers the lowest is taken.
    """
    for item, molecule in zip(entries, molecules, strict=True):
        if item["ok"] and not isinstance(molecule, MoleculeError):
            shown = molecule.lowest if isinstance(molecule, Conformers) else molecule
            item["geometry"]["numbers"] = shown.numbers.tolist()
            item["geometry"]["positions"] = shown.positions.tolist()


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
