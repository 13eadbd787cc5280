"""What QM9 holds, as plain values: for people, scripts and model cards."""

from pathlib import Path
from typing import Any

import numpy as np

from qm9flow import properties
from qm9flow.data.source import CITATION, LICENCE
from qm9flow.data.splits import SPLITS, make_split
from qm9flow.data.store import Dataset, other_caches
from qm9flow.elements import ELEMENTS


def describe(dataset: Dataset, split_seed: int = 0) -> dict[str, Any]:
    """Counts, elements, sizes, targets with units and ranges, splits, citation and licences.

    Caches of other formats beside the dataset's are listed, too: nobody may need them any more.

    Args:
        dataset: The whole of QM9.
        split_seed: Seed of the splits that are described.

    Returns:
        JSON values.

    Raises:
        ConfigError: A negative seed.
    """
    sizes = dataset.sizes
    return {
        "molecules": len(dataset),
        "atoms": len(dataset.numbers),
        "digest": dataset.digest,
        "folder": str(dataset.folder),
        "bytes": _bytes(dataset.folder),
        "other_caches": [
            {"folder": str(folder), "bytes": _bytes(folder)} for folder in other_caches(dataset)
        ],
        "sizes": {
            "smallest": int(sizes.min()),
            "largest": int(sizes.max()),
            "mean": float(sizes.mean()),
        },
        "elements": _elements(dataset),
        "targets": _targets(dataset),
        "splits": _splits(len(dataset), split_seed),
        "citation": CITATION,
        "licence": LICENCE,
    }


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _elements(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts = dataset.counts()
    return {
        element.symbol: {
            "atoms": int(counts[:, element.number].sum()),
            "molecules": int((counts[:, element.number] > 0).sum()),
        }
        for element in ELEMENTS
    }


def _targets(dataset: Dataset) -> dict[str, dict[str, Any]]:
    table = {}
    for item, values in zip(properties.PROPERTIES, dataset.truth().T, strict=True):
        table[item.name] = {
            "description": item.description,
            "unit": item.unit,
            "origin": item.origin,
            "minimum": float(values.min()),
            "mean": float(values.mean()),
            "maximum": float(values.max()),
            "standard_deviation": float(np.std(values)),
        }
    return table


def _splits(n_molecules: int, seed: int) -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for name in SPLITS:
        split = make_split(name, n_molecules, seed)
        table[name] = {
            "seed": seed,
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "digest": split.digest,
        }
    return table
