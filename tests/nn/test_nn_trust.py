"""Features, spreads and distances: symmetric, blind to padding, exported as they are."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from qm9flow.config import DensityConfig
from qm9flow.data.geometries import open_geometries
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.inference.session import open_session
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.nn.trust import RANGE, molecular_features
from qm9flow.properties import LEARNED, TARGETS, spread_names
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.targets import TargetCodec
from qm9flow.training.trust import fit_trust

TRAIN = make_split("standard").train[:2000]


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> PropertyModel:
    """Untrained, so that its errors are large, and larger for larger molecules."""
    torch.manual_seed(0)
    network = build(DensityConfig(layers=1, hidden=12, vectors=6, channels=4, radial=6), LEARNED)
    columns = [dataset.derived()[TRAIN][:, i] for i in (0, 1, 2, 3, 5, 6, 7, 8, 10, 11)]
    counts, extents = dataset.counts()[TRAIN], dataset.extents[TRAIN]
    model = PropertyModel(
        network, TargetCodec.fit(LEARNED, counts, extents, np.column_stack(columns))
    )
    geometries = open_geometries("dft", dataset)
    return PropertyModel(network, model.codec, fit_trust(model.eval(), geometries, dataset, TRAIN))


def judged(model: PropertyModel, dataset: Dataset, i: int, pad: int = 0) -> list[np.ndarray]:
    molecule = dataset.molecule(i)
    numbers = torch.zeros(1, len(molecule) + pad, dtype=torch.int64)
    positions = torch.zeros(1, len(molecule) + pad, 3)
    numbers[0, : len(molecule)] = torch.from_numpy(molecule.numbers)
    positions[0, : len(molecule)] = torch.from_numpy(molecule.positions)
    with torch.inference_mode():
        return [item.numpy() for item in model.eval().judged(numbers, positions)]


def test_padding_changes_nothing(model: PropertyModel, dataset: Dataset) -> None:
    for alone, padded in zip(
        judged(model, dataset, 5000), judged(model, dataset, 5000, pad=7), strict=True
    ):
        np.testing.assert_allclose(alone, padded, rtol=1e-4)


def test_one_atom_has_features() -> None:
    features = molecular_features(torch.ones(1, 1, 4), torch.tensor([[6]]))
    assert features.shape == (1, 12)
    np.testing.assert_allclose(features[0, 4:8], 0, atol=1e-5)


def test_the_fewest_atoms_are_no_strangers(model: PropertyModel, dataset: Dataset) -> None:
    """Water and methane lie far from the middle of QM9, but the network was trained on them."""
    sizes = dataset.sizes[TRAIN]
    small = TRAIN[np.argsort(sizes, kind="stable")[:20]]
    usual = np.quantile([judged(model, dataset, int(i))[2][0] for i in TRAIN[:300]], 0.99)
    assert all(judged(model, dataset, int(i))[2][0] <= usual for i in small)


def test_distorted_molecules_lie_far_out(model: PropertyModel, dataset: Dataset) -> None:
    usual = np.median([judged(model, dataset, int(i))[2][0] for i in TRAIN[:100]])
    molecule = dataset.molecule(int(TRAIN[0]))
    off = np.random.default_rng(0).normal(0, 0.3, molecule.positions.shape)
    with torch.inference_mode():
        _, _, distance = model.judged(
            torch.from_numpy(molecule.numbers)[None],
            torch.from_numpy((molecule.positions + off).astype(np.float32))[None],
        )
    assert float(distance) > 1.7 * usual


def test_spreads_follow_the_errors(model: PropertyModel, dataset: Dataset) -> None:
    """Within their range, and larger where errors are."""
    all_of_them = [judged(model, dataset, int(i)) for i in TRAIN[:400]]
    spreads = np.array([spread[0] for _, spread, _ in all_of_them])
    assert spreads.shape == (400, len(spread_names(LEARNED)))
    typical = model.trust.typical.numpy() if model.trust else np.ones(1)
    assert (spreads >= typical * math.exp(-RANGE) * 0.999).all()
    assert (spreads <= typical * math.exp(RANGE) * 1.001).all()
    true = dataset.derived()[TRAIN[:400], TARGETS.index("u0")]
    errors = np.abs([values[0][LEARNED.index("u0")] for values, _, _ in all_of_them] - true)
    order = np.argsort(spreads[:, spread_names(LEARNED).index("u0")])
    assert np.mean(errors[order[200:]]) > 1.2 * np.mean(errors[order[:200]])


@pytest.mark.slow  # the exporter takes seconds
def test_the_graph_gives_them_too(model: PropertyModel, dataset: Dataset, tmp_path: Path) -> None:
    export_onnx(model, tmp_path / "model.onnx")
    assert check_parity(model, tmp_path / "model.onnx", dataset).holds
    session = open_session(tmp_path / "model.onnx", "cpu", threads=1)
    assert session.spreads == spread_names(LEARNED)
    molecule = dataset.molecule(777)
    found = session.run_judged(molecule.numbers[None], molecule.positions.astype(np.float32)[None])
    assert not session.refines
    assert found[3] is None
    for mine, theirs in zip(judged(model, dataset, 777), found[:3], strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3)
