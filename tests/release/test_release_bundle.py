"""A bundle comes back as it was, and each way to break it is named."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError, ParityError
from qm9flow.molecules.geometry import nuclear_extents
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.release import bundle as bundles
from qm9flow.release.bundle import (
    Released,
    extend_bundle,
    load_model,
    read_bundle,
    read_rough_weights,
    write_bundle,
)
from qm9flow.release.record import FORMAT, BundleRecord

NEWER = FORMAT + 1
WATER = torch.tensor([[8, 1, 1]])
WATER_POSITIONS = torch.tensor([[[0.0, 0.0, 0.12], [0.0, 0.76, -0.47], [0.0, -0.76, -0.47]]])


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    return folder


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _replace_weights(folder: Path, blob: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(blob)
    digest = hashlib.sha256(blob).hexdigest()
    _edit(folder, lambda data: data["files"].update({"weights.safetensors": digest}))


def test_round_trip(bundle: Path, record: BundleRecord, weights: bytes) -> None:
    back, blob = read_bundle(bundle)
    assert blob == weights
    assert back.parity is not None
    assert back.parity.holds
    assert (
        back.to_json()
        == dataclasses.replace(record, parity=back.parity, files=back.files).to_json()
    )
    assert back.train == record.train
    assert sorted(path.name for path in bundle.iterdir()) == [
        "card.md",
        "config.json",
        "model.onnx",
        "weights.safetensors",
    ]


def test_loaded_model_is_the_network(bundle: Path, record: BundleRecord, weights: bytes) -> None:
    network = build(record.train.model, LEARNED)
    network.load_state_dict(load(weights))
    state = torch.get_rng_state()
    model = load_model(bundle)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    with torch.no_grad():
        encoded = network(WATER, WATER_POSITIONS).double().numpy()
        values = model(WATER, WATER_POSITIONS).numpy()
    counts = torch.zeros(1, 10).double().numpy()
    counts[0, 8], counts[0, 1] = 1, 2
    extents = nuclear_extents(WATER[0].numpy(), WATER_POSITIONS[0].numpy(), np.array([0, 3]))
    assert values == pytest.approx(record.codec.decode(counts, extents, encoded))


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "model.onnx"])
def test_missing_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(copied)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "model.onnx"])
def test_truncated_file(copied: Path, name: str) -> None:
    blob = (copied / name).read_bytes()
    (copied / name).write_bytes(blob[: len(blob) // 2])
    with pytest.raises(BundleError, match=rf"{name}.*(cut short|damaged)"):
        read_bundle(copied)


def test_truncated_weights_with_a_fitting_digest(copied: Path, weights: bytes) -> None:
    _replace_weights(copied, weights[:-10])
    with pytest.raises(BundleError, match=r"weights\.safetensors cannot be read"):
        load_model(copied)


def _drop(state: dict[str, torch.Tensor]) -> None:
    del state["convs.1.nn.2.bias"]


def _add(state: dict[str, torch.Tensor]) -> None:
    state["convs.9.bias"] = torch.zeros(3)


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state["convs.0.lin.weight"] = torch.zeros(8, 7)


def _cast(state: dict[str, torch.Tensor]) -> None:
    state["readout.dense.0.bias"] = state["readout.dense.0.bias"].double()


def _poison(state: dict[str, torch.Tensor]) -> None:
    state["embedding.weight"][6, 0] = torch.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, r"convs\.1\.nn\.2\.bias is missing"),
        (_add, r"no tensor convs\.9\.bias"),
        (_reshape, r"convs\.0\.lin\.weight must have shape \(8, 8\), got \(8, 7\)"),
        (_cast, r"readout\.dense\.0\.bias must be torch\.float32, got torch\.float64"),
        (_poison, r"embedding\.weight holds a number that is not finite"),
    ],
)
def test_wrong_tensors(
    copied: Path,
    weights: bytes,
    damage: Callable[[dict[str, torch.Tensor]], None],
    message: str,
) -> None:
    state = load(weights)
    damage(state)
    _replace_weights(copied, save(state))
    with pytest.raises(BundleError, match=message):
        read_bundle(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format=NEWER), rf"format {NEWER}.*up to {FORMAT}.*newer"),
        (lambda data: data.pop("format"), r"format None"),
        (lambda data: data.pop("verdict"), r"lacks the key 'verdict'"),
        (lambda data: data.update(extra=1), r"unknown key 'extra'"),
        (lambda data: data.update(split_seed="0"), r"split_seed must be int, got '0'"),
        (lambda data: data["metrics"].update(x="y"), r"metrics\.x must be int or float"),
        (lambda data: data["train"].update(loss="best"), r"train: loss must be one of"),
        (lambda data: data["train"]["model"].update(architecture="?"), r"unknown architecture"),
        (lambda data: data["train"]["model"].update(hidden=9), r"embedding.weight.*\(10, 9\)"),
        (lambda data: data["codec"].pop("scale"), r"codec lacks the key 'scale'"),
        (lambda data: data["codec"].pop("spread"), r"codec lacks the key 'spread'"),
        (lambda data: data["codec"].update(scale=[1.0]), r"scale must have shape \(10,\)"),
        (lambda data: data["codec"].update(spread=[0.0]), r"spread must have shape \(10,\)"),
        (lambda data: data["codec"].update(offset=["a"] * 10), r"no array of numbers"),
        (lambda data: data["codec"]["scale"].__setitem__(2, 0.0), r"scale must be above 0"),
        (lambda data: data["codec"]["names"].reverse(), r"no target set"),
        (lambda data: data["parity"].update(luck=1), r"parity cannot be read"),
        (lambda data: data["files"].pop("model.onnx"), r"files lacks the key 'model.onnx'"),
    ],
)
def test_wrong_record(
    copied: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    _edit(copied, change)
    with pytest.raises(BundleError, match=message):
        read_bundle(copied)


def test_record_that_is_no_object(copied: Path) -> None:
    (copied / "config.json").write_text("[1]")
    with pytest.raises(BundleError, match="must hold an object"):
        read_bundle(copied)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle"):
        read_bundle(tmp_path)


def test_infinite_metric_is_refused(record: BundleRecord) -> None:
    broken = dataclasses.replace(record, metrics={"val/score": float("nan")})
    with pytest.raises(BundleError, match="metrics of the record"):
        broken.to_json()


def test_a_full_folder_is_left_alone(
    bundle: Path, record: BundleRecord, weights: bytes, dataset: Dataset
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    with pytest.raises(BundleError, match="not empty"):
        write_bundle(bundle, record, Released(weights), dataset=dataset)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_weights_of_another_network_are_refused(
    tmp_path: Path, record: BundleRecord, dataset: Dataset
) -> None:
    with pytest.raises(BundleError, match=r"the weights: the tensor .* is missing"):
        write_bundle(tmp_path / "new", record, Released(save({})), dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_refiner_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    companions = Path(__file__).parent / "format_7"
    record, _ = read_bundle(companions)
    released = read_rough_weights(companions)
    assert record.rough is not None
    assert released is not None
    for refiner, said in (
        (released.choice, r"refine no geometries: the tensor .* is missing"),
        (b"none", "cannot be read as safetensors"),
    ):
        other = dataclasses.replace(released, refiner=refiner)
        with pytest.raises(BundleError, match=f"the weights of the refiner.* {said}"):
            extend_bundle(companions, tmp_path / "new", record.rough, other, dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_failure(
    tmp_path: Path,
    record: BundleRecord,
    weights: bytes,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_record: BundleRecord, _calibration: None) -> str:
        raise KeyboardInterrupt

    def write_nothing(_model: object, path: Path) -> None:
        path.write_bytes(b"")

    monkeypatch.setattr(bundles, "export_onnx", write_nothing)
    monkeypatch.setattr(bundles, "check_parity", lambda *_: None)
    monkeypatch.setattr(bundles, "model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(tmp_path / "new", record, Released(weights), dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_of_other_weights_is_not_released(
    bundle: Path,
    tmp_path: Path,
    record: BundleRecord,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write_the_bundles(_model: object, path: Path) -> None:
        shutil.copy(bundle / "model.onnx", path)

    state = load((bundle / "weights.safetensors").read_bytes())
    state["readout.dense.0.bias"] += 1.0
    monkeypatch.setattr(bundles, "export_onnx", write_the_bundles)
    with pytest.raises(ParityError, match="differs from its network"):
        write_bundle(tmp_path / "new", record, Released(save(state)), dataset=dataset)
    assert list(tmp_path.iterdir()) == []


def test_card_says_what_a_user_must_know(bundle: Path, record: BundleRecord) -> None:
    card = (bundle / "card.md").read_text()
    for text in (
        record.data_digest,
        record.split_digest,
        "| homo | energy of the HOMO | eV | 0.0512 | 0.0533 | 0.043 |",
        "| u0 | energy at 0 K | eV | 0.0314 | - | 0.043 |",
        "0123abc",
        "edge_width: 4",
        "10.1038/sdata.2014.22",
        "H, C, N, O and F",
        "3 to 29 atoms",
        "B3LYP",
        "chemical accuracy",
        "`model.onnx` gives the network's values",
    ):
        assert text in card
    assert not [line for line in card.splitlines() if line.rstrip() != line]
