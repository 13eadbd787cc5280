"""What a released model says of QM9's molecules: asked as a service asks it, by its graph."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.config import Device, GeometrySource
from qm9flow.data.conformers import open_conformers
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.store import Dataset
from qm9flow.inference.judged import Judged, joined
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Structure
from qm9flow.workflows.console import Console, Stopped

Indices = npt.NDArray[np.int64]

CHUNK = 1000
"""Molecules between two steps of the progress bar."""


def open_predictor(bundle: Path, device: Device) -> Predictor:
    """A bundle, opened where its network was trained.

    Args:
        bundle: Its folder; need not be complete.
        device: Where; a GPU that ONNX Runtime cannot use is left alone.

    Returns:
        The predictor.
    """
    return Predictor(bundle, provider="cpu" if device == "cpu" else "auto")


def judge_molecules(
    predictor: Predictor,
    source: GeometrySource,
    dataset: Dataset,
    molecules: Indices,
    console: Console,
) -> tuple[Judged, Indices]:
    """Ask a model about molecules of QM9.

    Args:
        predictor: The model.
        source: What it is shown.
        dataset: QM9.
        molecules: (n,), places in the dataset.
        console: Progress, the wish to stop.

    Returns:
        What it says of those that have a geometry from that source, and (m,), their places.

    Raises:
        CacheError: The geometries have not been made yet.
        Stopped: `console.stop` said so.
    """
    shown = _Shown(source, dataset)
    known = np.array([i for i in molecules.tolist() if shown.has(i)], dtype=np.int64)
    parts = []
    for start in range(0, len(known), CHUNK):
        if console.stop():
            raise Stopped
        some = [shown.structure(i) for i in known[start : start + CHUNK].tolist()]
        parts.append(predictor.judge(some, source))
        console.progress(f"predicting from {source}", start + len(some), len(known))
    return joined(parts), known


class _Shown:
    """Molecules of QM9 as one source has them."""

    def __init__(self, source: GeometrySource, dataset: Dataset) -> None:
        self.dataset, self.source = dataset, source
        self.made = None
        if source != "dft":
            self.made = open_conformers(dataset) if source == "smiles" else open_relaxed(dataset)

    def has(self, i: int) -> bool:
        return self.made is None or self.made.count(i) > 0

    def structure(self, i: int) -> Structure:
        if self.made is None:
            return self.dataset.molecule(i)
        return self.made.conformers(i) if self.source == "smiles" else self.made.molecule(i)
