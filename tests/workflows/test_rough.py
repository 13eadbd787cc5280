"""Networks for other geometries: trained, registered beside the main one, promoted, served."""

import os
from pathlib import Path

import few_geometries
import numpy as np
import pytest

from qm9flow.config import DensityConfig, TrainConfig, train_from_dict
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Molecule
from qm9flow.molecules.smiles import from_smiles
from qm9flow.registry.find import find_model
from qm9flow.registry.versions import resolve
from qm9flow.release.bundle import read_bundle
from qm9flow.training.start import weights_digest
from qm9flow.workflows.console import Console
from qm9flow.workflows.rough import Rough, starts_of
from qm9flow.workflows.single import run_training
from qm9flow.workflows.start import find_start

TINY = TrainConfig(
    model=DensityConfig(layers=1, hidden=12, vectors=6, channels=4, radial=6),
    split="standard",
    train_size=192,
    val_size=64,
    batch_size=32,
    max_epochs=3,
    warmup_steps=3,
    device="cpu",
    threads=1,
)
SPLIT = make_split("standard")


@pytest.fixture
def place(stores_in: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, and a cache in which a few molecules have conformers."""
    cache = stores_in / "cache"
    cache.mkdir()
    os.symlink(dataset.folder, cache / dataset.folder.name)
    chosen = np.concatenate(
        [SPLIT.train[:96], SPLIT.validation[:32], SPLIT.validation[5000:5064], SPLIT.test[:32]]
    ).tolist()
    for source in ("approximate", "smiles"):
        few_geometries.with_geometries(dataset, cache, chosen, source)
    monkeypatch.setenv("QM9FLOW_CACHE", str(cache))
    return stores_in


@pytest.mark.slow
def test_networks_for_other_geometries_stand_beside_the_main_one(place: Path) -> None:
    lines: list[str] = []
    console = Console(say=lines.append)
    first = run_training(
        TINY, console, name="main", is_to_be_registered=True, seed_pretrained=False
    )
    assert first is not None
    start = find_start("champion")
    options = start.options({"geometry": "approximate", "max_epochs": 2, "val_size": 64})
    second = run_training(
        train_from_dict({**options, "recipe": "group", "threads": 1}),
        console,
        name="beside",
        start=start,
        is_to_be_registered=True,
    )
    assert second is not None
    made, published = second
    assert isinstance(made, Rough)
    assert published is not None
    assert (published.version.number, published.alias) == (2, "champion")
    said = "\n".join(lines)
    assert all(f"{number} of 3" in said for number in (1, 2, 3))
    assert "a network where version 1 has none" in said
    assert "from smiles" in published.table()
    assert set(published.elsewhere) == {"smiles", "approximate"}
    assert "smiles/test/u0/mae" in resolve(2).tags

    bundle = find_model("champion").bundle
    record, _ = read_bundle(bundle)
    assert record.rough is not None
    assert record.rough.train.refiner is not None
    assert record.rough.choice.targets == "conformer"
    assert set(record.rough.test_mae) == {"smiles", "approximate"}
    predictor = Predictor(bundle, provider="cpu")
    assert predictor.calibration is not None
    assert set(predictor.calibration.sources) == {"dft", "smiles", "approximate"}
    ethanol = from_smiles("CCO")
    (prediction,) = predictor.predict([ethanol])
    assert prediction.intervals["gap"] is not None
    main, _ = predictor.predict([Molecule(ethanol.numbers, ethanol.positions[0]), ethanol])
    assert main.values["u0"] != prediction.values["u0"]
    assert main.values["a"] != prediction.values["a"]
    card = (bundle / "card.md").read_text()
    assert "test, from SMILES" in card
    assert "## Intervals" in card


def test_networks_for_other_geometries_go_on_from_their_own_weights() -> None:
    start = find_start("pretrained")
    starts = starts_of(start)
    files = start.record.files
    for name, file in (("refiner", "refiner"), ("network", "rough"), ("choice", "weights")):
        assert weights_digest(starts[name]) == files[f"{file}.safetensors"]
