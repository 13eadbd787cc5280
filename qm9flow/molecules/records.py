"""Molecules from the entries of an HTTP request, in any form, and what to draw of them.

Whatever comes in, these functions give a valid molecule or a `MoleculeError` that says which atom
or line is wrong and why. SMILES and mol blocks go through `qm9flow.molecules.pool`.
"""

from collections.abc import Mapping, Sequence

from qm9flow.errors import InvalidRecordError, MoleculeError
from qm9flow.molecules.arrays import from_arrays
from qm9flow.molecules.given import require_source, shown
from qm9flow.molecules.molecule import Molecule, Structure
from qm9flow.molecules.pool import (
    MAX_ATOMS,
    TIMEOUT_S,
    DrawingJob,
    Job,
    MoleculePool,
    Progress,
    or_raise,
    shared_pool,
)
from qm9flow.molecules.sdf import sdf_job
from qm9flow.molecules.smiles import smiles_job
from qm9flow.molecules.xyz import from_xyz, to_xyz

_FORMS: dict[str, tuple[set[str], set[str]]] = {
    "smiles": ({"smiles"}, set()),
    "xyz": ({"xyz"}, {"geometry"}),
    "sdf": ({"sdf"}, {"geometry"}),
    "arrays": ({"numbers", "positions"}, {"geometry"}),
}
"""Keys that an entry must have, and those that it may have, for each form."""


def from_record(record: object, timeout_s: float = TIMEOUT_S) -> Structure:
    """A molecule from one entry of an HTTP request.

    Args:
        record: `{"smiles": ...}`, `{"xyz": ...}`, `{"sdf": ...}` or `{"numbers": ...,
            "positions": ...}`; all but the first may add `"geometry": "dft" | "approximate"`.
        timeout_s: Seconds for a SMILES.

    Returns:
        The molecule; conformers of a SMILES.

    Raises:
        MoleculeError: The entry cannot be read, or is a molecule that is refused.
    """
    return or_raise(from_records([record], shared_pool(), budget_s=timeout_s)[0])


def from_records(
    records: Sequence[object],
    pool: MoleculePool,
    *,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> list[Structure | MoleculeError]:
    """Molecules from the entries of an HTTP request or the rows of a file, each judged by itself.

    Args:
        records: As in `from_record`; a `MoleculeError`, where a row holds none, is its own result.
        pool: Does the SMILES and mol blocks, and holds the limit of atoms.
        budget_s: Seconds for all SMILES and mol blocks together; none means no limit.
        progress: Called with (what, done, total) after each of them.

    Returns:
        A molecule, conformers or an error for each entry, in order.
    """
    results = read_records(records, pool.max_atoms)
    jobs = [item for item in results if isinstance(item, Job)]
    built = iter(pool.build(jobs, budget_s=budget_s, progress=progress)) if jobs else iter(())
    return [next(built) if isinstance(item, Job) else item for item in results]


def read_records(
    records: Sequence[object], max_atoms: int = MAX_ATOMS
) -> list[Molecule | Job | MoleculeError]:
    """The quick part of `from_records`: all that needs no RDKit.

    Args:
        records: As in `from_records`.
        max_atoms: Most atoms of a molecule.

    Returns:
        For each entry a molecule, what a `MoleculePool` has to build, or why it is refused.
    """
    results: list[Molecule | Job | MoleculeError] = []
    for record in records:
        try:
            results.append(
                record if isinstance(record, MoleculeError) else _read(record, max_atoms)
            )
        except MoleculeError as error:
            results.append(error)
    return results


def _read(record: object, max_atoms: int) -> Molecule | Job:
    if not isinstance(record, Mapping):
        raise InvalidRecordError(f"a molecule must be an object, got {shown(record)}")
    keys = set(record)
    form = next((f for f, (must, may) in _FORMS.items() if must <= keys <= must | may), None)
    if form is None:
        raise InvalidRecordError(
            'a molecule is {"smiles": ...}, {"xyz": ...}, {"sdf": ...} or {"numbers": ..., '
            '"positions": ...}, all but the first with "geometry" if you like; got the keys '
            f"{shown(sorted(map(str, keys)))}"
        )
    if form == "smiles":
        return smiles_job(record["smiles"])
    if form == "sdf":
        return sdf_job(record["sdf"], record.get("geometry", "approximate"))
    geometry = require_source(record.get("geometry", "dft"))
    if form == "xyz":
        return from_xyz(record["xyz"], geometry, max_atoms)
    return from_arrays(record["numbers"], record["positions"], geometry, max_atoms=max_atoms)


def read_drawings(
    records: Sequence[object], max_atoms: int = MAX_ATOMS
) -> list[DrawingJob | MoleculeError]:
    """What is to be drawn of the entries of an HTTP request, each judged by itself.

    A SMILES or a mol block is drawn whatever its elements and charge; bonds of a geometry are
    perceived from the distances.

    Args:
        records: As in `from_record`.
        max_atoms: Most atoms of a molecule.

    Returns:
        For each entry what a `MoleculePool` has to draw, or why it is refused.
    """
    return [
        item if isinstance(item, MoleculeError) else _drawing_job(item)
        for item in read_records(records, max_atoms)
    ]


def _drawing_job(item: Molecule | Job) -> DrawingJob:
    if isinstance(item, Job):
        return DrawingJob("smiles" if item.kind == "smiles" else "sdf", item.text)
    return DrawingJob("xyz", to_xyz(item))
