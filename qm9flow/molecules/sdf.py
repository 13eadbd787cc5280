"""Molecules from mol blocks and SDF texts."""

import re
from typing import cast

from qm9flow.errors import EmptyMoleculeError, UnreadableError
from qm9flow.molecules.given import require_source, require_text
from qm9flow.molecules.molecule import Geometry, Molecule
from qm9flow.molecules.pool import Job, or_raise, shared_pool


def from_sdf(text: str, geometry: Geometry = "approximate") -> Molecule:
    """A molecule from a mol block or an SDF record, with its own coordinates.

    Args:
        text: One mol block (V2000 or V3000) with 3D coordinates and explicit hydrogens; data
            items behind it are ignored.
        geometry: Where the coordinates come from; such files seldom hold QM9's level of theory.

    Returns:
        The molecule.

    Raises:
        MoleculeError: It cannot be read, lacks hydrogens, or is a molecule that is refused.
    """
    return cast(Molecule, or_raise(shared_pool().build([sdf_job(text, geometry)])[0]))


def sdf_job(text: object, geometry: object) -> Job:
    """What a `MoleculePool` has to build of a mol block.

    Args:
        text: What was given for one.
        geometry: What was given as the coordinates' source.

    Returns:
        The job.

    Raises:
        MoleculeError: It is no text, too long, empty, or holds several molecules; or the source is
            none.
    """
    block = split_sdf(require_text(text, "a mol block"))
    source = require_source(geometry)
    if len(block) > 1:
        raise UnreadableError(f"the SDF text holds {len(block)} molecules: give one at a time")
    if not block[0].strip():
        raise EmptyMoleculeError("the mol block is empty")
    return Job("sdf", block[0], source)


def split_sdf(text: str) -> list[str]:
    """The records of an SDF text.

    Args:
        text: Mol blocks, each closed by a line `$$$$`; the last one need not be.

    Returns:
        One mol block a record.
    """
    records = re.split(r"^\$\$\$\$[^\n]*\n?", re.sub(r"\r\n?", "\n", text), flags=re.MULTILINE)
    return [record for record in records if record.strip()] or [text]
