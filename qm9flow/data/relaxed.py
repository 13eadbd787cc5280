"""QM9's geometries as a cheap method gives them: each relaxed by a force field from where it is.

What a user has who knows the conformer, but not its minimum in DFT.
"""

from rdkit import Chem, rdBase

from qm9flow.data.geometry_set import GeometrySet, Kind, make_set, open_set
from qm9flow.data.source import Progress
from qm9flow.data.stereo import graph_with_geometry
from qm9flow.data.store import Dataset
from qm9flow.molecules.pool import Job


def open_relaxed(dataset: Dataset) -> GeometrySet:
    """The geometries as they were made.

    Args:
        dataset: QM9.

    Returns:
        All of them, memory-mapped.

    Raises:
        CacheError: They have not been made, or are damaged.
    """
    return open_set(KIND, dataset)


def make_relaxed(
    dataset: Dataset,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    replace: bool = False,
) -> GeometrySet:
    """Make them, going on where an earlier run was cut off.

    Args:
        dataset: QM9.
        workers: Processes; none means one for each usable core.
        progress: Called with what is done, how many molecules, of how many.
        replace: Make good ones anew, too.

    Returns:
        All of them, memory-mapped.

    Raises:
        CacheError: The cache cannot be written.
    """
    return make_set(KIND, dataset, workers=workers, progress=progress, replace=replace)


def jobs_of(dataset: Dataset, places: range) -> tuple[list[str], list[Job]]:
    """What is to be relaxed.

    Args:
        dataset: QM9.
        places: Of molecules in it.

    Returns:
        Their SMILES, and a job for each.
    """
    texts = [dataset.smiles(i) for i in places]
    return texts, [Job("relaxed", _mol_block(dataset, i)) for i in places]


def _mol_block(dataset: Dataset, i: int) -> str:
    """Empty, and so refused, where the bonds of the SMILES are not those of the geometry."""
    with rdBase.BlockLogs():
        graph = graph_with_geometry(dataset, i)
        return "" if graph is None else Chem.MolToMolBlock(graph)


KIND = Kind("relaxed-format{format}-{digest}", "qm9flow data relaxed", {}, jobs_of)
