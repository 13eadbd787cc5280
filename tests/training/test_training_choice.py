"""The choice among conformers: learned from features, from energies, and kept by the graph."""

import dataclasses
from pathlib import Path

import few_geometries
import numpy as np
import pytest
import torch

from qm9flow.config import DensityConfig, TrainConfig
from qm9flow.data.conformers import open_conformers
from qm9flow.data.geometries import open_geometries
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.store import Dataset
from qm9flow.inference.session import open_session
from qm9flow.nn.catalog import build
from qm9flow.nn.choice import Choice
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED
from qm9flow.release.export import check_parity, export_onnx
from qm9flow.training import choice as fitting
from qm9flow.training.choice import fit_choice
from qm9flow.training.metrics import training_codec
from qm9flow.training.trust import fit_trust

CHOSEN = list(range(50_000, 52_000, 60))


@pytest.fixture(scope="module")
def beside(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """QM9 with a few molecules' conformers and relaxed geometries beside it."""
    folder = tmp_path_factory.mktemp("cache")
    few_geometries.with_geometries(dataset, folder, CHOSEN, "approximate")
    return few_geometries.with_geometries(dataset, folder, CHOSEN)


def conformers(n: int, seed: int, *, by_energy: bool) -> fitting._Conformers:
    """Three of each molecule, of which the right one stands out by a feature or by its energy."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, n)
    is_right = (np.arange(3) == right[:, None]).ravel()
    features = rng.normal(size=(3 * n, 6))
    energies = rng.uniform(0, 4, 3 * n)
    if by_energy:
        energies = np.where(is_right, 0.0, energies + 0.5)
    else:
        features[:, 2] = np.where(is_right, 1.0, -1.0) + rng.normal(0, 0.2, 3 * n)
    errors = np.where(is_right[:, None], 0.0, rng.normal(0, 1, (3 * n, 4)))
    rows = [torch.tensor(item, dtype=torch.float32) for item in (features, energies, errors)]
    known = torch.from_numpy(is_right.astype(np.float32))
    return fitting._Conformers(rows[0], rows[1], rows[2], known, torch.arange(0, 3 * n + 1, 3))


@pytest.mark.parametrize("by_energy", [False, True])
def test_it_learns_what_tells_the_right_one(by_energy: bool) -> None:
    torch.manual_seed(0)
    choice = Choice(torch.zeros(6), torch.ones(6))
    fitting._learn(choice, conformers(4000, 0, by_energy=by_energy), 4000)
    new = conformers(1000, 1, by_energy=by_energy)
    with torch.no_grad():
        logits = choice.eval()(new.features) - choice.per_kcal * new.energies
    picked = logits.view(-1, 3).argmax(dim=1)
    assert (picked == new.is_known.view(-1, 3).argmax(dim=1)).float().mean() > 0.95


def test_real_conformers_are_weighed_in_the_graph(
    dataset: Dataset, beside: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    shape = DensityConfig(layers=1, hidden=12, vectors=6, channels=4, radial=6)
    train = TrainConfig(model=shape, split="standard", train_size=500, geometry="smiles")
    codec = training_codec(train, dataset)
    network = build(shape, LEARNED)
    model = PropertyModel(network, codec).eval()
    geometries, chosen = open_geometries("smiles", beside), np.array(CHOSEN)
    found = fit_choice(model, open_conformers(beside), open_relaxed(beside), beside, chosen)
    trust = fit_trust(model, geometries, beside, chosen)
    export_onnx(PropertyModel(network, codec, trust, found), tmp_path / "model.onnx")
    whole = PropertyModel(network, codec, trust, found)
    assert check_parity(whole, tmp_path / "model.onnx", dataset).holds
    session = open_session(tmp_path / "model.onnx", "cpu", threads=1)
    assert session.per_kcal == pytest.approx(float(found.per_kcal))
    assert 0.1 < float(found.per_kcal) < 3
    molecule = dataset.molecule(9)
    numbers, positions = molecule.numbers[None], molecule.positions.astype(np.float32)[None]
    with torch.inference_mode():
        mine = whole.judged(torch.from_numpy(numbers), torch.from_numpy(positions))
    np.testing.assert_allclose(session.run_judged(numbers, positions)[3], mine[3], atol=1e-3)


def test_the_likeliest_geometry_is_the_known_one(beside: Dataset) -> None:
    geometries = open_geometries("smiles", beside)
    some = geometries.known(np.array(CHOSEN))
    likeliest = geometries.likeliest(some)
    places, starts = geometries.all_of(some)
    for row, place in enumerate(likeliest):
        own = places[starts[row] : starts[row + 1]]
        assert place in own
        assert geometries.shares[place] == geometries.shares[own].max()


def test_fields_stay_together() -> None:
    whole = conformers(5, 0, by_energy=False)
    some, owner = whole.some(torch.tensor([3, 1]))
    assert owner.tolist() == [0, 0, 0, 1, 1, 1]
    for item in dataclasses.fields(fitting._Conformers)[:4]:
        mine, theirs = getattr(some, item.name), getattr(whole, item.name)
        assert torch.equal(mine[:3], theirs[9:12])
        assert torch.equal(mine[3:], theirs[3:6])
