"""QM9 as a user without quantum chemistry has it: rebuilt from SMILES by a force field."""

from qm9flow.data.geometry_set import GeometrySet, Kind, make_set, open_set
from qm9flow.data.source import Progress
from qm9flow.data.stereo import isomeric_smiles
from qm9flow.data.store import Dataset
from qm9flow.molecules.pool import CONFORMERS, Job

RULE = 3
"""Of how conformers are made, counted up where it gives others than before: another rule makes
another set."""


def open_conformers(dataset: Dataset, count: int = CONFORMERS) -> GeometrySet:
    """The conformers as they were made.

    Args:
        dataset: QM9.
        count: Starts of a molecule.

    Returns:
        All of them, memory-mapped.

    Raises:
        CacheError: They have not been made, or are damaged.
    """
    return open_set(kind_of(count), dataset)


def make_conformers(
    dataset: Dataset,
    count: int = CONFORMERS,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    replace: bool = False,
) -> GeometrySet:
    """Make them, going on where an earlier run was cut off.

    Args:
        dataset: QM9.
        count: Starts of a molecule.
        workers: Processes; none means one for each usable core.
        progress: Called with what is done, how many molecules, of how many.
        replace: Make good ones anew, too.

    Returns:
        All of them, memory-mapped.

    Raises:
        CacheError: The cache cannot be written.
    """
    return make_set(kind_of(count), dataset, workers=workers, progress=progress, replace=replace)


def kind_of(count: int) -> Kind:
    """What is made.

    Args:
        count: Starts of a molecule.

    Returns:
        The kind of set.
    """

    def jobs(dataset: Dataset, places: range) -> tuple[list[str], list[Job]]:
        texts = [isomeric_smiles(dataset, i) for i in places]
        return texts, [Job("smiles", text, conformers=count) for text in texts]

    name = f"conformers-format{{format}}-{{digest}}-{count}-rule{RULE}"
    return Kind(name, "qm9flow data conformers", {"conformers": count}, jobs)
