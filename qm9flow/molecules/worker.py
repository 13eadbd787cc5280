"""A process that makes molecules and drawings of texts: JSON lines in, JSON lines out.

Started by `qm9flow.molecules.pool`. It ends when its input ends, and ends itself when a job exceeds
its limit by far: then whoever should have killed it is gone. An error that nobody foresaw ends it
too, and the pool reports the molecule.
"""

import faulthandler
import json
import os
import sys
from typing import Any, TextIO

from qm9flow.errors import MoleculeError
from qm9flow.molecules.conformers import (
    mol_block_to_molecule,
    relaxed_mol_block,
    smiles_to_conformers,
)
from qm9flow.molecules.drawing import DRAW
from qm9flow.molecules.molecule import Conformers

MEMORY_BYTES = 4 * 1024**3
"""Address space of the process: odd input must not take the machine's memory."""

ORPHAN_GRACE_S = 10.0
"""Seconds beyond a job's limit after which the process ends itself."""


def main() -> None:
    """Answer jobs until the input ends."""
    _limit_memory()
    # RDKit's C++ code may print: answers get a copy of the pipe, and the old number is silenced.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    _send(answers, {"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(
                job["limit_s"] + ORPHAN_GRACE_S, exit=True, file=nowhere
            )
            answer = _answer(job)
            faulthandler.cancel_dump_traceback_later()
        _send(answers, answer)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        return _MAKE[job["kind"]](job)
    except MoleculeError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _conformers(job: dict[str, Any]) -> dict[str, Any]:
    return _plain(smiles_to_conformers(job["text"], job["max_atoms"], job["conformers"]))


def _relaxed(job: dict[str, Any]) -> dict[str, Any]:
    return _plain(relaxed_mol_block(job["text"], job["max_atoms"]))


def _molecule(job: dict[str, Any]) -> dict[str, Any]:
    molecule = mol_block_to_molecule(job["text"], job["geometry"], job["max_atoms"])
    return {
        "numbers": molecule.numbers.tolist(),
        "positions": molecule.positions.tolist(),
        "name": molecule.name,
    }


def _plain(found: Conformers) -> dict[str, Any]:
    return {
        "numbers": found.numbers.tolist(),
        "positions": found.positions.tolist(),
        "energies": found.energies.tolist(),
        "name": found.name,
        "isomers": found.isomers,
    }


def _drawing(job: dict[str, Any]) -> dict[str, Any]:
    return {"svg": DRAW[job["form"]](job["text"], job["max_atoms"])}


_MAKE = {"smiles": _conformers, "relaxed": _relaxed, "sdf": _molecule, "drawing": _drawing}
"""What to do for each kind of job."""


def _send(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
