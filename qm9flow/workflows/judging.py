"""What a released model says of QM9's molecules: asked as a service asks it, by its graph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.config import CHOICE_MOLECULES, Device, GeometrySource
from qm9flow.data.conformers import open_conformers
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.splits import Split
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.evaluation.coverage import Intervals
from qm9flow.evaluation.intervals import calibrate, half_widths, tested
from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.inference.calibration import Calibration, SourceCalibration
from qm9flow.inference.judged import Judged, joined
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Structure
from qm9flow.properties import GEOMETRIC, LEARNED, TARGETS
from qm9flow.training.metrics import all_targets
from qm9flow.workflows.console import Console, Stopped

Floats = npt.NDArray[np.float64]
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
        ConfigError: None of the molecules has one.
        Stopped: `console.stop` said so.
    """
    shown = _Shown(source, dataset)
    known = np.array([i for i in molecules.tolist() if shown.has(i)], dtype=np.int64)
    if not len(known):
        raise ConfigError(
            f"none of these {len(molecules):,} molecules has a geometry from {source}"
        )
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


@dataclass(frozen=True, eq=False)
class SourceErrors:
    """Errors of a model on molecules that it never trained on, from one source of geometries.

    Attributes:
        validation: On `standard`'s validation molecules.
        validation_errors: (n_molecules, 10), |error| of the learned targets on them, in their
            units; NaN for molecules that have no such geometry.
        test: On `standard`'s test molecules: reported, and used for nothing.
        calibration: What makes intervals, measured on validation molecules that nothing is chosen
            by, and tested on the test molecules.
    """

    validation: ErrorTable
    validation_errors: Floats
    test: ErrorTable
    calibration: SourceCalibration


def source_errors(
    predictor: Predictor,
    source: GeometrySource,
    dataset: Dataset,
    standard: Split,
    console: Console,
    *,
    of_test: tuple[Judged, Indices] | None = None,
) -> SourceErrors:
    """Measure a model on one source of geometries.

    Args:
        predictor: The model.
        source: What it is shown.
        dataset: QM9.
        standard: The split whose molecules are taken.
        console: Progress, the wish to stop.
        of_test: What it says of the test molecules, and their places, if that is known.

    Returns:
        Errors and calibration.

    Raises:
        CacheError: The geometries have not been made yet.
        Stopped: `console.stop` said so.
    """
    truth, n = dataset.truth(), len(standard.validation)
    judged, known = judge_molecules(predictor, source, dataset, standard.validation, console)
    test, places = of_test or judge_molecules(predictor, source, dataset, standard.test, console)

    def table(values: Floats, molecules: Indices) -> ErrorTable:
        return error_table(values, truth[molecules], linear_baseline(dataset, standard, molecules))

    predicted = values_of(predictor, judged, dataset, known, source)
    errors = np.full((n, len(LEARNED)), np.nan)
    columns = [TARGETS.index(name) for name in LEARNED]
    errors[np.isin(standard.validation, known)] = np.abs(predicted - truth[known])[:, columns]
    rest = np.isin(known, standard.validation[CHOICE_MOLECULES:])
    calibrated = calibrate(judged.part(rest), truth[known[rest]])
    return SourceErrors(
        validation=table(predicted, known),
        validation_errors=errors,
        test=table(values_of(predictor, test, dataset, places, source), places),
        calibration=tested(calibrated, test, truth[places]),
    )


def values_of(
    predictor: Predictor,
    judged: Judged,
    dataset: Dataset,
    molecules: Indices,
    source: GeometrySource,
) -> Floats:
    """All 19 targets as the network has them: A, B and C too where it learned them.

    Args:
        predictor: The model.
        judged: What it says of some molecules.
        dataset: QM9.
        molecules: (n,), their places.
        source: What it was shown.

    Returns:
        (n, 19), in the order and units of `properties.TARGETS`.
    """
    rotational = np.stack([judged.values[name] for name in GEOMETRIC], axis=1)
    if source == "dft":  # as the tables' own float64 geometries have them
        rotational = dataset.rotational_ghz[molecules]
    targets = predictor.session.targets
    return all_targets(targets, judged.outputs, dataset.counts()[molecules], rotational)


def intervals_of(
    judged: Judged, source: GeometrySource, calibration: Calibration | None
) -> Intervals | None:
    """The intervals that are served of some molecules.

    Args:
        judged: What the model says of them.
        source: What it was shown.
        calibration: Of the model.

    Returns:
        Intervals of those targets that have some; None where there is nothing to make them.
    """
    calibrated = calibration.sources.get(source) if calibration else None
    if calibration is None or calibrated is None:
        return None
    halves = half_widths(judged, calibrated)
    columns = np.full((len(judged.outputs), len(TARGETS)), np.nan)
    for name, half in halves.items():
        columns[:, TARGETS.index(name)] = half
    return Intervals(calibration.level, calibrated.molecules, columns)
