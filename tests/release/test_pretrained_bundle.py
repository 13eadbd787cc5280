"""The model that is in this checkout: whole, small, and the one that its evidence is of."""

import csv
import json

import numpy as np
import pytest

from qm9flow.data.splits import STANDARD_VALIDATION, make_split
from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.registry import pretrained
from qm9flow.registry.gate import PARITY_LIMIT
from qm9flow.release.bundle import read_bundle
from qm9flow.release.record import BundleRecord
from qm9flow.workflows.version_tags import version_tags

LARGEST_MB = 20
EARLIER = ("config.json", "curves.csv")
ROUGH_EARLIER = ("config.json", "rough.csv")


def test_it_is_whole_and_passes_what_the_gate_asks_of_one_alone(dataset: Dataset) -> None:
    record, _ = read_bundle(pretrained.bundle())
    assert record.data_digest == dataset.digest
    split = make_split(record.train.split, len(dataset), record.split_seed)
    assert split.digest == record.split_digest
    assert float(version_tags(record, "any")["parity"]) <= PARITY_LIMIT
    assert set(record.test_mae) == set(record.validation_mae) == set(TARGETS)


def test_its_evidence_is_of_this_bundle(dataset: Dataset) -> None:
    record, _ = read_bundle(pretrained.bundle())
    errors, _ = pretrained.validation_errors()
    assert errors.shape == (STANDARD_VALIDATION, len(LEARNED))
    for name, error in zip(LEARNED, errors.mean(axis=0, dtype=np.float64), strict=True):
        assert record.validation_mae[name] == pytest.approx(error, rel=1e-4)
    places = make_split("standard", len(dataset), record.split_seed).validation[:50]
    truth = dataset.truth()[places]
    predictor = Predictor(pretrained.bundle(), provider="cpu")
    predictions = predictor.predict([dataset.molecule(int(i)) for i in places])
    for column, name in enumerate(LEARNED):
        values = np.array([item.values[name] for item in predictions])
        mine = np.abs(values - truth[:, TARGETS.index(name)])
        scale = record.validation_mae[name]
        np.testing.assert_allclose(errors[:50, column], mine, rtol=0.02, atol=0.02 * scale)


def test_it_is_small_enough_for_a_package() -> None:
    files = [path for path in pretrained.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < LARGEST_MB * 1e6
    named = {path.relative_to(pretrained.FOLDER).as_posix() for path in files}
    config = json.loads((pretrained.FOLDER / "bundle" / "config.json").read_text())
    whole = {"card.md", "config.json", *config["files"]}
    assert {"model.onnx", "weights.safetensors", "calibration.json"} <= whole
    beside = {"validation.npz", "curves.csv"}
    earlier = {f"earlier/{n}/{name}" for n in range(1, _earlier() + 1) for name in EARLIER}
    if "rough.onnx" in config["files"]:
        beside |= {"rough.csv"}
    earlier |= {f"{folder}/{name}" for folder in _rough_earlier() for name in ROUGH_EARLIER}
    assert named == {*beside, *earlier, *(f"bundle/{name}" for name in whole)}


def test_the_trainings_that_it_went_on_from_are_kept() -> None:
    """From fresh weights to this bundle, each names the weights of the one before."""
    folders = [pretrained.FOLDER / "earlier" / str(n) for n in range(1, _earlier() + 1)]
    weights = None
    for folder in [*folders, pretrained.FOLDER / "bundle"]:
        record = BundleRecord.from_json((folder / "config.json").read_text(), str(folder))
        assert record.train.start == weights
        weights = record.files["weights.safetensors"]


def test_so_are_those_that_its_networks_for_other_geometries_went_on_from() -> None:
    starts = None
    for folder in [*_rough_earlier(), "bundle"]:
        path = pretrained.FOLDER / folder / "config.json"
        record = BundleRecord.from_json(path.read_text(), str(path))
        rough, main = record.rough, record.files["weights.safetensors"]
        assert rough is not None
        assert [rough.refiner.start, rough.train.start] == (starts or [main, main])
        assert rough.choice.start == main
        starts = [record.files[f"{name}.safetensors"] for name in ("refiner", "rough")]


def _rough_earlier() -> list[str]:
    count = len(list((pretrained.FOLDER / "rough_earlier").glob("*")))
    return [f"rough_earlier/{n}" for n in range(1, count + 1)]


def _earlier() -> int:
    return len(list((pretrained.FOLDER / "earlier").glob("*")))


def test_its_curves_end_at_its_errors() -> None:
    record, _ = read_bundle(pretrained.bundle())
    with (pretrained.FOLDER / "curves.csv").open(newline="") as file:
        epochs = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in epochs] == list(range(1, len(epochs) + 1))
    best = min(epochs, key=lambda row: float(row["val/score"]))
    for name in LEARNED:
        error = float(best[f"val/{name}/mae"])
        assert record.metrics[f"val/{name}/mae"] == pytest.approx(error, rel=1e-4)
        assert record.validation_mae[name] == pytest.approx(error, rel=0.05)
