"""From a finished training to a bundle, with what its graphs were measured to predict."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.torch import load

from qm9flow.config import GeometrySource, TrainConfig
from qm9flow.data.geometries import open_geometries
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.coverage import Intervals
from qm9flow.inference.calibration import LEVEL, Calibration
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.refiner import Refiner, make_refiner
from qm9flow.properties import GEOMETRIC, TARGETS
from qm9flow.release.bundle import (
    Companions,
    Released,
    ReleasedRough,
    extend_bundle,
    read_bundle,
    write_bundle,
)
from qm9flow.release.record import BundleRecord, RoughRecord, record_of
from qm9flow.tracking import provenance
from qm9flow.training.metrics import training_codec
from qm9flow.training.refined import refined
from qm9flow.training.trust import fit_trust
from qm9flow.workflows.console import Console
from qm9flow.workflows.judging import (
    SourceErrors,
    intervals_of,
    judge_molecules,
    open_predictor,
    source_errors,
    values_of,
)
from qm9flow.workflows.rough import Rough, properties_of
from qm9flow.workflows.trained import Trained

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """What a bundle predicts of molecules that it never trained on.

    Attributes:
        own: From DFT's geometries.
        test_predictions: (n, 19), of the test molecules of the network's own split, as they are
            served.
        test_intervals: Of the same.
        elsewhere: From others that it has networks of its own for.
    """

    own: SourceErrors
    test_predictions: Floats
    test_intervals: Intervals | None
    elsewhere: dict[GeometrySource, SourceErrors]

    @property
    def calibration(self) -> Calibration:
        """Of all sources."""
        others = {source: item.calibration for source, item in self.elsewhere.items()}
        return Calibration(LEVEL, {"dft": self.own.calibration, **others})


def make_bundle(
    made: Trained | Rough,
    base: Path | None,
    dataset: Dataset,
    folder: Path,
    console: Console,
    *,
    companions: Companions | None = None,
) -> tuple[BundleRecord, Measured]:
    """Bundle a network and measure it by its graph. Called again, it only measures again.

    Args:
        made: The training, or those of a model for other geometries than DFT's.
        base: The bundle that networks for other geometries stand in; None for a network alone.
        dataset: QM9.
        folder: The bundle's; appears complete or not at all.
        console: Progress, the wish to stop.
        companions: Networks for other geometries that one for DFT's takes over. They are not
            measured again: that takes geometries which cost hours to make.

    Returns:
        Its record, and what it predicts of molecules that it never trained on.

    Raises:
        BundleError: The bundle cannot be written, or what it is made of is damaged.
        ExportError: A network cannot be exported.
        ParityError: A graph does not give its network's numbers.
        Stopped: `console.stop` said so.
    """
    train = properties_of(made).train
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a kill while one was made
        shutil.rmtree(left, ignore_errors=True)
    if folder.exists():  # bundles appear complete or not at all
        record, _ = read_bundle(folder)
        return record, _measure(folder, record, train, dataset, console)
    found = list[Measured]()

    def measure(place: Path, record: BundleRecord) -> tuple[BundleRecord, Calibration]:
        measured = _measure(place, record, train, dataset, console)
        found.append(measured)
        sources = measured.calibration.sources
        if companions is not None:
            sources = sources | companions.calibration
        return _with_errors(record, measured), Calibration(LEVEL, sources)

    if isinstance(made, Trained):
        record = dataclasses.replace(record_of(train, dataset), **_circumstances(made))
        network = judged_network(made.train, made.weights, dataset)
        record = write_bundle(
            folder, record, network, dataset=dataset, companions=companions, measure=measure
        )
    else:
        assert base is not None
        record = extend_bundle(
            base,
            folder,
            _rough_record(made),
            released_rough(made, dataset),
            main=main_network(base, dataset),
            dataset=dataset,
            measure=measure,
        )
    return record, found[0]


def _measure(
    folder: Path, record: BundleRecord, train: TrainConfig, dataset: Dataset, console: Console
) -> Measured:
    """Ask the graphs in a bundle's folder, which need not be complete."""
    is_rough_new = record.rough is not None and record.rough.inherited is None
    predictor = open_predictor(folder, train.device)
    own = make_split(train.split, len(dataset), train.split_seed)
    # once: `standard`'s are among them
    test, _ = judge_molecules(predictor, "dft", dataset, own.test, console)
    standard = make_split("standard", len(dataset), train.split_seed)
    shared = np.isin(own.test, standard.test)
    of_test = test.part(shared), own.test[shared]
    values = values_of(predictor, test, dataset, own.test, "dft")
    errors = source_errors(predictor, "dft", dataset, standard, console, of_test=of_test)
    return Measured(
        own=errors,
        test_predictions=_as_served(values, dataset.rotational_ghz[own.test]),
        test_intervals=intervals_of(test, "dft", Calibration(LEVEL, {"dft": errors.calibration})),
        elsewhere={
            source: source_errors(predictor, source, dataset, standard, console)
            for source in predictor.sources
            if source != "dft" and is_rough_new
        },
    )


def _as_served(values: Floats, rotational_ghz: Floats) -> Floats:
    """A, B and C are served from the geometry, also where a network learned them."""
    served = values.copy()
    served[:, [TARGETS.index(name) for name in GEOMETRIC]] = rotational_ghz
    return served


def _rough_record(rough: Rough) -> RoughRecord:
    named = {"refiner": rough.refiner, "choice": rough.choice}
    metrics = {
        f"{name}/{key}": value
        for name, trained in named.items()
        for key, value in trained.best_metrics.items()
    }
    circumstances = _circumstances(rough.network)
    circumstances["metrics"] = {**rough.network.best_metrics, **metrics}
    return RoughRecord(
        rough.network.train, rough.refiner.train, rough.choice.train, **circumstances
    )


def _circumstances(trained: Trained) -> dict[str, Any]:
    """What a record says of how a network came about."""
    return {
        "metrics": trained.best_metrics,
        "verdict": trained.verdict,
        "git_commit": provenance.git_commit(),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }


def _with_errors(record: BundleRecord, measured: Measured) -> BundleRecord:
    rough = record.rough
    if rough is not None and rough.inherited is None:
        rough = dataclasses.replace(
            rough,
            validation_mae={k: item.validation.maes() for k, item in measured.elsewhere.items()},
            test_mae={k: item.test.maes() for k, item in measured.elsewhere.items()},
        )
    return dataclasses.replace(
        record,
        validation_mae=measured.own.validation.maes(),
        test_mae=measured.own.test.maes(),
        rough=rough,
    )


def main_network(base: Path, dataset: Dataset) -> Released | None:
    """A bundle's network for DFT's geometries, where its graph does not judge itself yet.

    Args:
        base: The bundle's folder.
        dataset: QM9.

    Returns:
        What its graph is to be made from anew; None where it may stay as it is.
    """
    if open_predictor(base, "cpu").session.spreads:
        return None
    record, weights = read_bundle(base)
    return judged_network(record.train, weights, dataset)


def released_rough(rough: Rough, dataset: Dataset) -> ReleasedRough:
    """Networks for other geometries than DFT's, with what the main one of them says of its errors.

    Args:
        rough: The trainings.
        dataset: QM9.

    Returns:
        What goes into a bundle.
    """
    refiner = make_refiner(rough.network.train.model, load(rough.refiner.weights))
    network = judged_network(rough.network.train, rough.network.weights, dataset, refiner)
    return ReleasedRough(network, rough.refiner.weights, rough.choice.weights)


def judged_network(
    train: TrainConfig, weights: bytes, dataset: Dataset, refiner: Refiner | None = None
) -> Released:
    """Let a network learn from its errors on the molecules that it was trained on.

    Args:
        train: How it was trained.
        weights: safetensors bytes.
        dataset: QM9.
        refiner: Refines geometries before the network sees them.

    Returns:
        What goes into a bundle.
    """
    codec = training_codec(train, dataset)
    network = build(train.model, codec.names)
    network.load_state_dict(load(weights))
    split = make_split(train.split, len(dataset), train.split_seed)
    molecules = split.first_train(train.train_size)
    geometries = open_geometries(train.geometry, dataset)
    if refiner is not None:
        geometries = refined(geometries, refiner, geometries.known(molecules))
    model = PropertyModel(network, codec).eval()
    return Released(weights, fit_trust(model, geometries, dataset, molecules))
