"""Errors of a registered version or of a bundle, computed from what is served: its ONNX graph."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow import locations, properties
from qm9flow.config.choices import GeometrySource
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import BundleError, ConfigError, InferenceError, TrackingError
from qm9flow.evaluation.assessment import (
    WORST_TARGETS,
    Assessment,
    Part,
    Shown,
    Subject,
    assess,
)
from qm9flow.evaluation.assessment_files import FOLDER, place_in_run, write_assessment
from qm9flow.inference.judged import Judged
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import TARGETS
from qm9flow.registry.find import FoundModel, find_model
from qm9flow.registry.versions import resolve
from qm9flow.release.bundle import read_bundle
from qm9flow.release.record import BundleRecord
from qm9flow.tracking.runs import add_to_run
from qm9flow.tracking.stores import connect, resolve_stores
from qm9flow.workflows.console import Console
from qm9flow.workflows.judging import intervals_of, judge_molecules

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluated:
    """An evaluation and where it is.

    Attributes:
        assessment: What was found.
        folder: Where it was written, None if no folder was named.
        run_ids: MLflow's runs that have it.
        not_logged: Why other runs do not have it, in words.
    """

    assessment: Assessment
    folder: Path | None
    run_ids: tuple[str, ...]
    not_logged: tuple[str, ...]

    def where(self) -> str:
        """Where it is, in words."""
        lines = [f"tables and figures: {self.folder}"] if self.folder else []
        lines += [f"logged to run {run_id}, folder {FOLDER}" for run_id in self.run_ids]
        lines += [f"not logged: {reason}" for reason in self.not_logged]
        return "\n".join(lines)


def evaluate(
    model: str,
    part: Part,
    console: Console,
    *,
    geometry: GeometrySource = "dft",
    limit: int | None = None,
    targets: Sequence[str] = WORST_TARGETS,
    n_worst: int = 5,
    output: Path | None = None,
) -> Evaluated:
    """Predict a part of a model's own split with its ONNX graph, and look at the errors.

    The part holds that of `standard`, whose errors are given beside.

    Args:
        model: An alias, a version's number, a bundle's folder, or `pretrained`.
        part: `test` or `validation`.
        console: Progress, the wish to stop.
        geometry: What the model is shown of the molecules.
        limit: Only the first molecules of the part; None means all.
        targets: Those whose worst molecules are shown.
        n_worst: Molecules a target.
        output: A folder to write to; None writes none.

    Returns:
        What was found. For a registered version it was logged to the run that made it, and under
        `mlflow run` to the project's run.

    Raises:
        ConfigError: There is no such target, or the folder cannot be written to.
        RegistryError: There is no such model, or it is damaged.
        BundleError: The bundle is damaged, or was trained on other data.
        CacheError: Such geometries have not been made yet.
        InferenceError: The graph cannot be run, or gives no finite values.
        Stopped: `console.stop` said so.
    """
    for target in targets:
        properties.get(target)
    found = find_model(_reference(model))
    if found.remark:
        console.remark(found.remark)
    record, _ = read_bundle(found.bundle)
    dataset = open_dataset(progress=console.progress)
    subject = subject_of(found, record, dataset, geometry)
    asked = getattr(subject.split, part)[:limit]
    predictor = Predictor(found.bundle)
    judged, known = judge_molecules(predictor, geometry, dataset, asked, console)
    assessment = assess(
        subject,
        dataset,
        part,
        _served(judged, dataset, known),
        shown=Shown(geometry, known, asked=len(asked)),
        intervals=intervals_of(judged, geometry, predictor.calibration),
        targets=targets,
        n_worst=n_worst,
    )
    return _keep(assessment, found, dataset, output)


def _reference(model: str) -> str:
    """A folder is meant from where the user is, also under `mlflow run`."""
    return str(locations.callers_path(Path(model))) if os.sep in model else model


def subject_of(
    found: FoundModel, record: BundleRecord, dataset: Dataset, geometry: GeometrySource = "dft"
) -> Subject:
    """What is to be evaluated.

    Args:
        found: The model.
        record: Of its bundle.
        dataset: QM9.
        geometry: What it is to be shown.

    Returns:
        The subject.

    Raises:
        BundleError: It was trained on other data, or on a split that is made no more.
    """
    train = record.train if geometry == "dft" or record.rough is None else record.rough.train
    is_named = found.version is not None or found.alias is not None
    label = found.label if is_named else f"bundle {found.bundle.name}"
    split = _split(record, dataset, label)
    if train.split != split.name:  # inherited: cut from the same permutation, as seeds must agree
        split = make_split(train.split, len(dataset), train.split_seed)
    return Subject(
        label=label,
        version=found.version,
        alias=found.alias,
        bundle=str(found.bundle),
        architecture=train.model.architecture,
        train_molecules=train.train_size or len(split.train),
        split=split,
        recorded=_recorded(record, geometry),
    )


def _recorded(record: BundleRecord, geometry: GeometrySource) -> dict[str, dict[str, float]]:
    """Errors by part."""
    if geometry == "dft":
        return {"test": record.test_mae, "validation": record.validation_mae}
    if record.rough is None:
        return {}
    parts = {"test": record.rough.test_mae, "validation": record.rough.validation_mae}
    return {part: errors[geometry] for part, errors in parts.items() if geometry in errors}


def _split(record: BundleRecord, dataset: Dataset, label: str) -> Split:
    """The split that a bundle was trained on, molecule by molecule."""
    if record.data_digest != dataset.digest:
        raise BundleError(
            f"{label} was trained on data {record.data_digest[:12]}, here lies "
            f"{dataset.digest[:12]}: its errors would not compare"
        )
    split = make_split(record.train.split, len(dataset), record.split_seed)
    if split.digest != record.split_digest:
        raise BundleError(
            f"{label} was trained on another split {record.split_name!r} than this version of "
            "qm9flow makes: it may have seen the test molecules"
        )
    return split


def _served(judged: Judged, dataset: Dataset, molecules: Indices) -> Floats:
    """(n, 19), in the order of `properties.TARGETS` and in their units."""
    values = np.stack([judged.values[name] for name in TARGETS], axis=1)
    strange = ~np.isfinite(values).all(axis=1)
    if strange.any():
        first = dataset.index[molecules[np.argmax(strange)]]
        raise InferenceError(
            f"the network gives no finite values for {strange.sum()} of {len(values)} molecules, "
            f"QM9's {first} among them"
        )
    return values


def _keep(
    assessment: Assessment, found: FoundModel, dataset: Dataset, output: Path | None
) -> Evaluated:
    """Write and log it."""
    run_ids, not_logged = _runs(found), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = locations.callers_path(output) if output else Path(scratch)
        if output or run_ids:
            try:
                write_assessment(assessment, dataset, folder)
            except OSError as error:
                raise ConfigError(f"cannot write to {folder}: {error.strerror}") from error
        stored = []
        for run_id in run_ids:
            try:
                _log(assessment, run_id, folder)
                stored.append(run_id)
            except TrackingError as error:
                not_logged.append(str(error))
    return Evaluated(assessment, folder if output else None, tuple(stored), tuple(not_logged))


def _runs(found: FoundModel) -> list[str]:
    """The run that made a version, and that of `mlflow run`."""
    made = [] if found.version is None else [resolve(found.version).run_id]
    project = os.environ.get("MLFLOW_RUN_ID")
    return [run_id for run_id in dict.fromkeys([*made, project]) if run_id]


def _log(assessment: Assessment, run_id: str, folder: Path) -> None:
    metrics = {} if assessment.is_limited else assessment.metrics()
    client = connect(resolve_stores())
    add_to_run(client, run_id, folder, place_in_run(assessment), metrics)
