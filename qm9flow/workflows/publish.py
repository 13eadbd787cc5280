"""From a finished training to a registered version: errors, bundle, ONNX, gate."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.torch import load

from qm9flow import properties
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.evaluation.tables import ErrorTable, error_table
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.registry.aliases import Promotion, judged_before, promote
from qm9flow.registry.versions import Version, register
from qm9flow.release.bundle import read_bundle, write_bundle
from qm9flow.release.export import Parity
from qm9flow.release.record import BundleRecord
from qm9flow.tracking import provenance
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.device import pick_device
from qm9flow.training.metrics import all_targets, learned_scale, training_codec, training_sample
from qm9flow.training.predict import predict
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.trained import Trained

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
    """

    version: Version
    promotion: Promotion
    validation: ErrorTable
    test: ErrorTable
    bundle: Path

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
        """Both parts' errors beside the linear baseline and chemical accuracy."""
        header = (
            f"{'target':8}{'unit':12}{'validation':>12}{'test':>12}{'linear':>12}{'chemical':>12}"
        )
        lines = [
            f"mean absolute errors on {self.validation.molecules:,} validation and "
            f"{self.test.molecules:,} test molecules",
            header,
        ]
        for row in self.test.rows:
            cells = (self.validation.row(row.target).mae, row.mae, row.baseline_mae)
            numbers = "".join(_cell(value) for value in (*cells, row.chemical_accuracy))
            lines.append(f"{row.target:8}{row.unit:12}{numbers}")
        lines.append(
            f"RMSE pooled over the 19 raw test targets: {self.test.rmse_pooled:.2f}, "
            f"without A {self.test.rmse_pooled_without_a:.2f}"
        )
        return "\n".join(lines)

    def verdict(self) -> str:
        """Whether the version is champion, and by which figure."""
        return (
            f"qm9flow version {self.version.number} is {self.alias}: "
            f"{self.promotion.decision.figure}"
        )


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
    split = make_split("standard", len(dataset), trained.train.split_seed)
    model = load_network(trained, dataset)
    console.say("measuring validation and test errors, exporting to ONNX")
    predicted = predict_all(model, dataset, split.validation)
    truth = dataset.truth()[split.validation]
    columns = [TARGETS.index(name) for name in LEARNED]
    errors = np.abs(predicted - truth)[:, columns]
    baseline = linear_baseline(dataset, split, split.validation)
    validation = error_table(predicted, truth, baseline)
    test = _test_table(model, dataset, split)
    record = _bundled(trained, dataset, folder / BUNDLE, validation, test)
    if console.stop():
        raise Stopped
    version = register(
        folder / BUNDLE,
        run_id,
        validation_errors=errors,
        scale=learned_scale(dataset, training_sample(trained.train, dataset).train),
        # The weights tell two networks of one name apart, after a deleted study for instance.
        tags=_tags(record, f"{release_id}/{_digest(trained.weights)}"),
        tracking_uri=tracking_uri,
    )
    # Once: started again, a study must not undo what people have decided since.
    promotion = judged_before(version) or promote(version, tracking_uri=tracking_uri)
    return Published(promotion.version, promotion, validation, test, folder / BUNDLE)


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


def load_network(trained: Trained, dataset: Dataset) -> PropertyModel:
    """The network of a finished training, with its codec.

    Args:
        trained: The training.
        dataset: QM9: the codec follows from its training molecules.

    Returns:
        The model, on the CPU, in evaluation mode.
    """
    codec = training_codec(trained.train, dataset)
    network = build(trained.train.model, codec.names)
    network.load_state_dict(load(trained.weights))
    return PropertyModel(network, codec).eval()


def predict_all(model: PropertyModel, dataset: Dataset, indices: Indices) -> Floats:
    """All 19 targets of some molecules.

    Args:
        model: The network with its codec.
        dataset: QM9.
        indices: (n,), places in the dataset.

    Returns:
        (n, 19), in the order of `properties.TARGETS` and in their units.
    """
    counts = dataset.counts()[indices]
    values = predict(model, dataset, indices, pick_device("auto"))
    return all_targets(model.targets, values, counts, dataset.rotational_ghz[indices])


def _test_table(model: PropertyModel, dataset: Dataset, split: Split) -> ErrorTable:
    """Test errors are reported, and used for nothing."""
    predicted = predict_all(model, dataset, split.test)
    baseline = linear_baseline(dataset, split, split.test)
    return error_table(predicted, dataset.truth()[split.test], baseline)


def _bundled(
    trained: Trained, dataset: Dataset, folder: Path, validation: ErrorTable, test: ErrorTable
) -> BundleRecord:
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a kill while one was made
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():  # bundles appear complete or not at all
        return read_bundle(folder)[0]
    train = trained.train
    split = make_split(train.split, len(dataset), train.split_seed)
    record = BundleRecord(
        train=train,
        codec=training_codec(train, dataset),
        data_digest=dataset.digest,
        split_name=split.name,
        split_seed=split.seed,
        split_digest=split.digest,
        validation_mae={row.target: row.mae for row in validation.rows},
        test_mae={row.target: row.mae for row in test.rows},
        metrics=trained.best_metrics,
        verdict=trained.verdict,
        git_commit=provenance.git_commit(),
        hardware=provenance.hardware(),
        versions=provenance.versions(),
    )
    return write_bundle(folder, record, trained.weights, dataset=dataset)


def _tags(record: BundleRecord, release_id: str) -> dict[str, str]:
    maes = {"val": record.validation_mae, "test": record.test_mae}
    return {
        "release_id": release_id,
        "data_digest": record.data_digest,
        "split": record.split_name,
        "split_seed": str(record.split_seed),
        "split_digest": record.split_digest,
        "parity": repr(_in_accuracies(record.parity)),
        "git_commit": record.git_commit or "unknown",
        "architecture": record.train.model.architecture,
        **{f"{part}/{k}/mae": repr(v) for part, mae in maes.items() for k, v in mae.items()},
    }


def _in_accuracies(parity: Parity | None) -> float:
    """The largest difference of graph and network, in chemical accuracies; NaN if unknown."""
    if parity is None:
        return float("nan")
    return max(
        difference / accuracy
        for name, difference in parity.difference.items()
        if (accuracy := properties.get(name).chemical_accuracy)
    )
