"""Errors of a registered version, computed from what is served: its ONNX graph."""

import numpy as np

from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import RegistryError
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import TARGETS
from qm9flow.registry.versions import Version, fetch, resolve
from qm9flow.workflows.console import Console

CHUNK = 1000
"""Molecules between two steps of the progress bar."""


def evaluate_version(which: str | None, part: str, console: Console) -> tuple[int, ErrorTable]:
    """Predict one part of the `standard` split with a version's ONNX graph.

    Args:
        which: A version's number or alias; None means the champion.
        part: `test` or `validation`.
        console: Progress.

    Returns:
        The version's number, and its errors beside those of the linear baseline.

    Raises:
        RegistryError: There is no such version, or it was trained on other data.
    """
    version = resolve(which)
    dataset = open_dataset(progress=console.progress)
    _refuse_other_data(version, dataset)
    split = make_split("standard", len(dataset), int(version.tags["split_seed"]))
    indices = getattr(split, part)
    predictor = Predictor(fetch(version))
    rows: list[list[float]] = []
    for start in range(0, len(indices), CHUNK):
        molecules = [dataset.molecule(int(i)) for i in indices[start : start + CHUNK]]
        # Undefined constants (A of linear molecules, all of atoms) are 0 in tables.
        rows += [
            [prediction.values[name] or 0.0 for name in TARGETS]
            for prediction in predictor.predict(molecules)
        ]
        console.progress("predicting", len(rows), len(indices))
    truth = dataset.truth()[indices]
    baseline = linear_baseline(dataset, split, indices)
    return version.number, error_table(np.array(rows), truth, baseline)


def _refuse_other_data(version: Version, dataset: Dataset) -> None:
    digest = version.tags.get("data_digest")
    if digest != dataset.digest:
        raise RegistryError(
            f"{version.label} was trained on data {str(digest)[:12]}, here lies "
            f"{dataset.digest[:12]}: its errors would not compare"
        )
