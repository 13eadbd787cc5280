"""Conformers of some molecules of QM9, made for real, where making all takes an hour."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qm9flow.data import cache
from qm9flow.data.conformers import kind_of
from qm9flow.data.geometry_set import Kind
from qm9flow.data.relaxed import KIND
from qm9flow.data.store import Dataset
from qm9flow.molecules.molecule import Conformers
from qm9flow.molecules.pool import CONFORMERS, MoleculePool

STARTS = 5
"""Of each molecule: enough for several conformers."""


def with_geometries(
    dataset: Dataset, folder: Path, molecules: Sequence[int], source: str = "smiles"
) -> Dataset:
    """QM9, beside which lie the geometries of a few molecules, as if all others had failed.

    Args:
        dataset: QM9.
        folder: For them.
        molecules: Places in the dataset.
        source: `smiles` or `approximate`.

    Returns:
        The dataset.
    """
    moved = dataclasses.replace(dataset, folder=folder / dataset.folder.name)
    kind = kind_of(CONFORMERS) if source == "smiles" else KIND
    made = _made(kind, dataset, molecules)
    write_set(kind, moved, made)
    return moved


def _made(kind: Kind, dataset: Dataset, molecules: Sequence[int]) -> dict[int, Conformers]:
    jobs = [kind.jobs(dataset, range(i, i + 1))[1][0] for i in molecules]
    jobs = [dataclasses.replace(job, conformers=STARTS) for job in jobs]
    with MoleculePool(2) as pool:
        built = pool.build(jobs)
    return {
        i: item for i, item in zip(molecules, built, strict=True) if isinstance(item, Conformers)
    }


def write_set(kind: Kind, dataset: Dataset, made: dict[int, Conformers]) -> None:
    """Write a set as `make_set` does.

    Args:
        kind: Which.
        dataset: Names the folder.
        made: By place in the dataset.
    """
    places = sorted(made)
    counts = np.zeros(len(dataset), dtype=np.int64)
    counts[places] = [len(made[i].energies) for i in places]
    sizes = [len(made[i]) for i in places for _ in made[i].energies]
    texts = [made[i].name.encode() for i in places]
    lengths = np.zeros(len(dataset), dtype=np.int64)
    lengths[places] = [len(text) for text in texts]
    arrays = {
        "first": np.concatenate([[0], np.cumsum(counts)]),
        "energies": np.concatenate([made[i].energies for i in places]).astype(np.float32),
        "ptr": np.concatenate([[0], np.cumsum(sizes)]),
        "numbers": np.concatenate(
            [np.tile(made[i].numbers, len(made[i].energies)) for i in places]
        ).astype(np.uint8),
        "positions": np.concatenate([made[i].positions.reshape(-1, 3) for i in places]).astype(
            np.float32
        ),
        "texts": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "text_ptr": np.concatenate([[0], np.cumsum(lengths)]),
    }
    hashes = {name: cache.array_hash(array) for name, array in arrays.items()}
    cache.write(
        kind.folder(dataset), arrays, {"digest": cache.content_digest(hashes), "failures": []}
    )
