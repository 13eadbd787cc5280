"""Molecules from SMILES."""

import re
from typing import cast

from qm9flow.errors import EmptyMoleculeError, InvalidSmilesError, TooLargeError
from qm9flow.molecules.given import shown
from qm9flow.molecules.molecule import Conformers
from qm9flow.molecules.pool import TIMEOUT_S, Job, or_raise, shared_pool

MAX_SMILES_CHARACTERS = 2000
"""Longer SMILES cannot describe a molecule within `MAX_ATOMS`."""


def from_smiles(text: str, timeout_s: float = TIMEOUT_S) -> Conformers:
    """Conformers from a SMILES; RDKit makes them, in a process that can be killed.

    Args:
        text: A SMILES of one molecule without net charge.
        timeout_s: Seconds after which the attempt is given up, at most `TIMEOUT_S`.

    Returns:
        Its geometries.

    Raises:
        MoleculeError: No SMILES, or a molecule that is refused, or no geometry (in time).
    """
    found = or_raise(shared_pool().build([smiles_job(text)], budget_s=timeout_s)[0])
    return cast(Conformers, found)


def smiles_job(text: object) -> Job:
    """What a `MoleculePool` has to build of a SMILES.

    Args:
        text: What was given for one.

    Returns:
        The job.

    Raises:
        MoleculeError: It is no text, empty, too long, or holds what no SMILES does.
    """
    if not isinstance(text, str):
        raise InvalidSmilesError(f"a SMILES is a text, got {shown(text)}")
    text = text.strip()
    if not text:
        raise EmptyMoleculeError("the SMILES is empty")
    if len(text) > MAX_SMILES_CHARACTERS:
        raise TooLargeError(
            f"the SMILES has {len(text):,} characters; the limit is {MAX_SMILES_CHARACTERS:,}"
        )
    strange = re.search(r"[^!-~]", text)
    if strange:
        raise InvalidSmilesError(
            f"not a SMILES: character {strange.start() + 1} is {shown(strange[0])}"
        )
    return Job("smiles", text)
