"""From a finished training to a registered version: errors, bundle, ONNX, gate."""

import dataclasses
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load

from qm9flow.config import CHOICE_MOLECULES, TrainConfig
from qm9flow.data.geometries import open_geometries
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.assessment import Assessment, assess
from qm9flow.evaluation.assessment_files import FOLDER, place_in_run, write_assessment
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.evaluation.intervals import calibrate, tested
from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.inference.calibration import LEVEL, Calibration, SourceCalibration
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import GEOMETRIC, LEARNED, TARGETS
from qm9flow.registry.aliases import CHAMPION, Promotion, judged_before, promote
from qm9flow.registry.find import FoundModel
from qm9flow.registry.versions import Version, register, resolve
from qm9flow.release.bundle import Released, read_bundle, write_bundle
from qm9flow.release.record import BundleRecord
from qm9flow.tracking import provenance
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.metrics import all_targets, learned_scale, training_codec, training_sample
from qm9flow.training.trust import fit_trust
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.evaluate import subject_of
from qm9flow.workflows.judging import judge_molecules, open_predictor
from qm9flow.workflows.pretrained import seed_registry
from qm9flow.workflows.trained import Trained
from qm9flow.workflows.version_tags import version_tags

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BUNDLE = "bundle"


@dataclass(frozen=True)
class Published:
    """A registered version and what it is worth.

    Attributes:
        version: The version.
        promotion: What the gate said.
        validation: Errors on `standard`'s validation molecules.
        test: Errors on `standard`'s test molecules.
        bundle: The bundle's folder.
        pretrained: The version of the model that comes with qm9flow, None if it was left out.
        evaluation: The test errors by size, element and molecule, beside the literature and in
            pictures: a folder as `qm9flow evaluate` writes it; None if it could not be written.
    """

    version: Version
    promotion: Promotion
    validation: ErrorTable
    test: ErrorTable
    bundle: Path
    pretrained: Version | None = None
    evaluation: Path | None = None

    @property
    def alias(self) -> str:
        """`champion` or `challenger`."""
        return self.promotion.alias

    @property
    def metrics(self) -> dict[str, float]:
        """Errors as metrics of the run that made the version."""
        return {
            f"final/{part}/{row.target}/mae": row.mae
            for part, table in (("val", self.validation), ("test", self.test))
            for row in table.rows
        }

    def table(self) -> str:
        """Both parts' errors beside the pretrained model, a linear one, chemical accuracy.

        The other columns are errors on the test molecules.
        """
        rival = self._rival_errors()
        heads = ["validation", "test", *(["pretrained"] if rival else []), "linear", "chemical"]
        lines = [
            f"mean absolute errors on {self.validation.molecules:,} validation and "
            f"{self.test.molecules:,} test molecules",
            f"{'target':8}{'unit':12}" + "".join(f"{head:>12}" for head in heads),
        ]
        for row in self.test.rows:
            cells: list[float | None] = [self.validation.row(row.target).mae, row.mae]
            cells += [rival.get(row.target)] if rival else []
            cells += [row.baseline_mae, row.chemical_accuracy]
            lines.append(f"{row.target:8}{row.unit:12}" + "".join(map(_cell, cells)))
        lines.append(
            f"RMSE pooled over the 19 raw test targets: {self.test.rmse_pooled:.2f}, "
            f"without A {self.test.rmse_pooled_without_a:.2f}"
        )
        return "\n".join(lines)

    def verdict(self) -> str:
        """Whether the version is champion, and by which figure."""
        number = self.version.number
        verdict = f"qm9flow version {number} is {self.alias}: {self.promotion.decision.figure}"
        rival = self.pretrained
        if rival is None or CHAMPION not in rival.aliases:
            return verdict
        return (
            f"{verdict}\n"
            f"The pretrained model, version {rival.number}, stays champion: "
            f"`qm9flow promote {number} --force` makes yours champion all the same, and "
            "`--seed-pretrained false` (`mlflow run`: `-P seed_pretrained=false`) leaves the "
            "pretrained one out of an empty registry."
        )

    def _rival_errors(self) -> dict[str, float]:
        """The pretrained model's errors on the same test molecules, as far as they are known."""
        rival, tags = self.pretrained, self.version.tags
        same = ("data_digest", "split_seed")
        if rival is None or any(rival.tags.get(name) != tags.get(name) for name in same):
            return {}
        return rival.mae("test")


def _cell(value: float | None) -> str:
    return f"{'-':>12}" if value is None else f"{value:12.4g}"


def publish(
    trained: Trained,
    dataset: Dataset,
    folder: Path,
    *,
    run_id: str,
    release_id: str,
    tracking_uri: str,
    seed_pretrained: bool,
    console: Console,
) -> Published:
    """Measure, bundle, register and promote a network. Called again, it changes nothing more.

    Args:
        trained: The training.
        dataset: QM9.
        folder: Where the bundle is made.
        run_id: The run that made the network.
        release_id: What the version, with its weights, is known by when this is called again.
        tracking_uri: The registry's store.
        seed_pretrained: Register the model that comes with qm9flow first if no version is
            registered, so that this one has to beat it.
        console: Lines and progress.

    Returns:
        The version and its errors.

    Raises:
        ExportError: The network cannot be exported.
        ParityError: The graph does not give the network's numbers.
        RegistryError: The registry refuses.
        Stopped: `console.stop` said so before the version was registered.
    """
    if console.stop():
        raise Stopped
    console.say("measuring validation and test errors, exporting to ONNX")
    record, measured = _bundled(trained, dataset, folder / BUNDLE, console)
    if console.stop():
        raise Stopped
    pretrained = seed_registry(tracking_uri, run_id, console) if seed_pretrained else None
    version = register(
        folder / BUNDLE,
        run_id,
        validation_errors=measured.validation_errors,
        scale=learned_scale(dataset, training_sample(trained.train, dataset).train),
        # The weights tell two networks of one name apart, after a deleted study for instance.
        tags=version_tags(record, f"{release_id}/{_digest(trained.weights)}"),
        tracking_uri=tracking_uri,
    )
    # Once: started again, a study must not undo what people have decided since.
    promotion = judged_before(version) or promote(version, tracking_uri=tracking_uri)
    if pretrained is not None:
        pretrained = resolve(pretrained.number, tracking_uri)  # its alias may have changed
    alias = next(iter(promotion.version.aliases), None)
    found = FoundModel(folder / BUNDLE, promotion.version.number, alias)
    subject = subject_of(found, record, dataset)
    assessment = assess(subject, dataset, "test", measured.test_predictions)
    return Published(
        promotion.version,
        promotion,
        measured.validation,
        measured.test,
        folder / BUNDLE,
        pretrained,
        _written(assessment, dataset, folder, console),
    )


def _digest(weights: bytes) -> str:
    return hashlib.sha256(weights).hexdigest()[:12]


def put_on_record(published: Published, tracker: StudyTracker) -> None:
    """Log what came out to the run that made the version.

    Args:
        published: The version and its errors.
        tracker: Of the run.
    """
    tracker.log_metrics(published.metrics)
    tracker.set_tags({"model_version": published.version.number, "alias": published.alias})
    tracker.log_table(published.test.rows_as_dicts(), "test_errors")
    if published.evaluation is not None:
        tracker.log_artifact(published.evaluation, f"{FOLDER}/{published.evaluation.parent.name}")


@dataclass(frozen=True, eq=False)
class _Measured:
    """What a network predicts of molecules that it never trained on.

    Attributes:
        validation: Errors on `standard`'s validation molecules.
        validation_errors: (n_molecules, 10), of the learned targets.
        test: Errors on `standard`'s test molecules: reported, and used for nothing.
        test_predictions: (n, 19), of the test molecules of the network's own split, as they are
            served.
        calibration: What makes intervals from DFT's geometries.
    """

    validation: ErrorTable
    validation_errors: Floats
    test: ErrorTable
    test_predictions: Floats
    calibration: SourceCalibration


def _measure(folder: Path, train: TrainConfig, dataset: Dataset, console: Console) -> _Measured:
    """Ask the graph in a bundle's folder, which need not be complete."""
    truth = dataset.truth()
    own = make_split(train.split, len(dataset), train.split_seed)
    standard = make_split("standard", len(dataset), train.split_seed)
    predictor = open_predictor(folder, train.device)
    validation, _ = judge_molecules(predictor, "dft", dataset, standard.validation, console)
    # once: `standard`'s are among them
    test, _ = judge_molecules(predictor, "dft", dataset, own.test, console)
    shared = np.isin(own.test, standard.test)

    def values(outputs: Floats, indices: Indices) -> Floats:
        """As the network has them, A, B and C too where it learned them."""
        counts, rotational = dataset.counts()[indices], dataset.rotational_ghz[indices]
        return all_targets(predictor.session.targets, outputs, counts, rotational)

    def table(predicted: Floats, indices: Indices) -> ErrorTable:
        return error_table(predicted, truth[indices], linear_baseline(dataset, standard, indices))

    predicted = values(validation.outputs, standard.validation)
    of_test = values(test.outputs[shared], own.test[shared])
    rest = slice(CHOICE_MOLECULES, None)
    calibrated = calibrate(validation.part(rest), truth[standard.validation[rest]])
    columns = [TARGETS.index(name) for name in LEARNED]
    return _Measured(
        validation=table(predicted, standard.validation),
        validation_errors=np.abs(predicted - truth[standard.validation])[:, columns],
        test=table(of_test, own.test[shared]),
        test_predictions=_as_served(
            values(test.outputs, own.test), dataset.rotational_ghz[own.test]
        ),
        calibration=tested(calibrated, test.part(shared), truth[own.test[shared]]),
    )


def _as_served(values: Floats, rotational_ghz: Floats) -> Floats:
    """A, B and C are served from the geometry, also where a network learned them."""
    served = values.copy()
    served[:, [TARGETS.index(name) for name in GEOMETRIC]] = rotational_ghz
    return served


def _written(
    assessment: Assessment, dataset: Dataset, folder: Path, console: Console
) -> Path | None:
    """The version is registered already: what cannot be drawn of it must not fail the work."""
    if not np.isfinite(assessment.predicted).all():
        console.say("no evaluation: the network gives no finite values for some test molecules")
        return None
    place = place_in_run(assessment)
    console.say(f"drawing test errors by size, element and molecule, for {place} in the run")
    try:
        write_assessment(assessment, dataset, folder / place)
    except OSError as error:
        console.say(f"no evaluation: cannot write to {folder / place}: {error.strerror}")
        return None
    return folder / place


def _bundled(
    trained: Trained, dataset: Dataset, folder: Path, console: Console
) -> tuple[BundleRecord, _Measured]:
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a kill while one was made
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():  # bundles appear complete or not at all
        return read_bundle(folder)[0], _measure(folder, trained.train, dataset, console)
    train, found = trained.train, list[_Measured]()
    split = make_split(train.split, len(dataset), train.split_seed)
    record = BundleRecord(
        train=train,
        codec=training_codec(train, dataset),
        data_digest=dataset.digest,
        split_name=split.name,
        split_seed=split.seed,
        split_digest=split.digest,
        metrics=trained.best_metrics,
        verdict=trained.verdict,
        git_commit=provenance.git_commit(),
        hardware=provenance.hardware(),
        versions=provenance.versions(),
    )

    def measure(place: Path, record: BundleRecord) -> tuple[BundleRecord, Calibration]:
        measured = _measure(place, train, dataset, console)
        record = dataclasses.replace(
            record,
            validation_mae={row.target: row.mae for row in measured.validation.rows},
            test_mae={row.target: row.mae for row in measured.test.rows},
        )
        found.append(measured)
        return record, Calibration(LEVEL, {"dft": measured.calibration})

    network = released(trained, dataset)
    record = write_bundle(folder, record, network, dataset=dataset, measure=measure)
    return record, found[0]


def released(trained: Trained, dataset: Dataset) -> Released:
    """A finished training's network, with what it says of its own errors.

    Args:
        trained: The training.
        dataset: QM9.

    Returns:
        What goes into a bundle.
    """
    train = trained.train
    codec = training_codec(train, dataset)
    network = build(train.model, codec.names)
    network.load_state_dict(load(trained.weights))
    geometries = open_geometries(train.geometry, dataset)
    molecules = training_sample(train, dataset).train
    trust = fit_trust(PropertyModel(network, codec).eval(), geometries, dataset, molecules)
    return Released(trained.weights, trust)
