"""Learning to refine geometries and to tell conformers: on real molecules, in seconds."""

import dataclasses
from pathlib import Path

import few_geometries
import numpy as np
import pytest
import torch
from safetensors.torch import load

import qm9flow
from qm9flow.config import DensityConfig, TrainConfig
from qm9flow.data.conformers import open_conformers
from qm9flow.data.geometries import candidates, open_geometries
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident_conformers import ResidentConformers
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.inference.choice import open_choice
from qm9flow.nn.choice import Choice
from qm9flow.nn.refiner import Refiner, make_refiner
from qm9flow.release.export import check_choice, export_choice
from qm9flow.training.events import Event, Failed, Finished
from qm9flow.training.fit import fit
from qm9flow.training.geometry_task import GeometryTask, superposed
from qm9flow.training.refined import atoms_of, refined
from qm9flow.training.start import weights_digest

PRETRAINED = Path(qm9flow.__file__).parent / "pretrained" / "bundle"
SPLIT = make_split("standard")
CHOSEN = np.concatenate([SPLIT.train[:96], SPLIT.validation[:24]]).tolist()
SHAPE = DensityConfig(layers=2, hidden=16, vectors=8, channels=4, radial=6, heads=0)
BASE = TrainConfig(
    model=SHAPE,
    split="standard",
    train_size=96,
    val_size=24,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=5,
    ema_decay=None,
    device="cpu",
    threads=1,
    max_epochs=25,
)
GEOMETRY = dataclasses.replace(BASE, geometry="approximate", targets="geometry")
CONFORMER = dataclasses.replace(BASE, geometry="smiles", targets="conformer")


@pytest.fixture(scope="module")
def beside(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """QM9 with a few molecules' conformers and relaxed geometries beside it."""
    folder = tmp_path_factory.mktemp("cache")
    few_geometries.with_geometries(dataset, folder, CHOSEN, "approximate")
    return few_geometries.with_geometries(dataset, folder, CHOSEN)


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished), events[-1]
    return events[-1]


@pytest.mark.slow
def test_a_refiner_brings_geometries_nearer_to_dfts(dataset: Dataset, tmp_path: Path) -> None:
    """From the trunk that comes with qm9flow: from nothing it takes thousands of molecules."""
    more = [*CHOSEN, *SPLIT.train[96:240].tolist()]
    few_geometries.with_geometries(dataset, tmp_path, more, "approximate")
    beside = few_geometries.with_geometries(dataset, tmp_path, CHOSEN)
    start = (PRETRAINED / "weights.safetensors").read_bytes()
    config = dataclasses.replace(
        GEOMETRY,
        model=DensityConfig(hidden=96),
        start=weights_digest(start),
        train_size=240,
        optimizer="soap",
        learning_rate=2e-3,
        max_epochs=4,
    )
    task = GeometryTask(config, beside, torch.device("cpu"))
    before = task.validate(Refiner(DensityConfig(hidden=96)))
    ended = finished(list(fit(config, beside, start=start)))
    assert ended.best_metrics["val/score"] < 0.95 * before["val/score"]
    assert ended.best_metrics["val/bonded/mae"] < 0.85 * before["val/bonded/mae"]
    refiner = make_refiner(config.model, load(ended.weights))
    again = task.validate(refiner)
    assert again["val/score"] == pytest.approx(ended.best_metrics["val/score"], rel=1e-5)

    geometries = open_geometries("approximate", beside)
    held_out = geometries.known(SPLIT.validation[:24])
    better = refined(geometries, refiner, held_out)
    others = np.setdiff1d(np.flatnonzero(np.diff(geometries.first)), held_out)
    for molecules, is_same in ((others, True), (held_out, False)):
        places = atoms_of(geometries.atoms, geometries.first[molecules])
        moved = np.abs(better.atoms.positions[places] - geometries.atoms.positions[places])
        assert (moved.max() == 0) == is_same
        assert moved.max() < 0.5
    first = geometries.first[held_out]
    assert (better.rotational_ghz[first] != geometries.rotational_ghz[first]).all()


def test_geometries_are_laid_over_each_other_by_turning_alone() -> None:
    rng = np.random.default_rng(0)
    is_atom = np.arange(9) < np.array([9, 7, 4, 3, 2])[:, None]
    still = rng.normal(size=(5, 9, 3)) * is_atom[..., None]
    turns = np.linalg.qr(rng.normal(size=(5, 3, 3)))[0]
    turns *= np.linalg.det(turns)[:, None, None]
    moved = (still @ turns + rng.normal(size=(5, 1, 3))) * is_atom[..., None]
    assert np.abs(superposed(moved, still, is_atom) - still).max() < 1e-12

    laid = superposed(moved * np.array([1, 1, -1]), still, is_atom)
    assert np.abs(laid[:3] - still[:3]).max() > 0.1  # mirror images stay what they are
    assert np.linalg.norm(laid[0, 0] - laid[0, 1]) == pytest.approx(
        np.linalg.norm(still[0, 0] - still[0, 1])
    )


def test_a_refiner_sees_other_errors_than_the_force_fields_too(beside: Dataset) -> None:
    task = GeometryTask(GEOMETRY, beside, torch.device("cpu"))
    made, other = [], []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        for group in (group for step in task.batches(96, 8, generator) for group in step):
            as_made = task.geometries.positions[group.index, : group.positions.shape[1]]
            off = (group.positions - as_made).flatten(1).abs().amax(dim=1)
            made.append(off == 0)
            true = group.targets.view(len(off), -1, 3)[:, : group.positions.shape[1]]
            other.append((group.positions - true).square().mean(dim=(1, 2)).sqrt())
            assert not group.positions[group.numbers == 0].any()
    is_made, distance = torch.cat(made), torch.cat(other)
    assert 0.55 < is_made.float().mean() < 0.75
    assert distance[~is_made].mean() < 0.7 * distance[is_made].mean()
    assert distance[~is_made].min() < 0.01


def test_a_refiner_without_any_geometry_is_impossible(dataset: Dataset, tmp_path: Path) -> None:
    nobody = few_geometries.with_geometries(dataset, tmp_path, CHOSEN[-24:], "approximate")
    *_, last = fit(GEOMETRY, nobody)
    assert isinstance(last, Failed)
    assert last.reason == "impossible"
    assert "none of 96 molecules has an approximate geometry" in last.message


def test_a_training_sees_what_its_refiner_makes(beside: Dataset) -> None:
    first = finished(list(fit(dataclasses.replace(GEOMETRY, max_epochs=1), beside)))
    digest = weights_digest(first.weights)
    config = dataclasses.replace(BASE, geometry="approximate", refiner=digest, max_epochs=1)
    plain = dataclasses.replace(config, refiner=None)
    with_it = finished(list(fit(config, beside, refiner=first.weights)))
    without = finished(list(fit(plain, beside)))
    assert with_it.best_metrics["val/r2/mae"] != without.best_metrics["val/r2/mae"]
    with pytest.raises(ConfigError, match="refines geometries by the weights"):
        fit(config, beside)
    other = finished(list(fit(dataclasses.replace(GEOMETRY, max_epochs=1, seed=1), beside)))
    with pytest.raises(ConfigError, match="the ones at hand have"):
        fit(config, beside, refiner=other.weights)


def test_weights_of_another_kind_refine_nothing(beside: Dataset) -> None:
    plain = finished(list(fit(dataclasses.replace(BASE, max_epochs=1), beside)))
    config = dataclasses.replace(
        BASE, geometry="approximate", refiner=weights_digest(plain.weights)
    )
    *_, last = fit(config, beside, refiner=plain.weights)
    assert isinstance(last, Failed)
    assert "refine no geometries" in last.message


def test_a_choice_learns_which_conformer_is_meant(beside: Dataset) -> None:
    first, *_, last = fit(CONFORMER, beside)
    ended = finished([last])
    assert 20 < first.train_molecules <= 96  # type: ignore[union-attr]
    assert ended.best_metrics["val/right"] > 0.5


def test_a_stopped_refiner_goes_on_as_if_nothing_had_happened(beside: Dataset) -> None:
    config = dataclasses.replace(GEOMETRY, max_epochs=3)
    whole = finished(list(fit(config, beside)))
    blob = None
    for event in fit(config, beside):
        if hasattr(event, "blob"):
            blob = event.blob
            break
    again = finished(list(fit(config, beside, checkpoint=blob)))
    assert again.weights == whole.weights


def test_a_trunk_gives_what_it_has(beside: Dataset) -> None:
    plain = finished(list(fit(dataclasses.replace(BASE, max_epochs=1), beside)))
    digest = weights_digest(plain.weights)
    events = list(
        fit(
            dataclasses.replace(GEOMETRY, start=digest, max_epochs=1),
            beside,
            start=plain.weights,
        )
    )
    assert finished(events).best_epoch == 1
    other = dataclasses.replace(SHAPE, hidden=20)
    wide = dataclasses.replace(GEOMETRY, model=other, start=digest, max_epochs=1)
    *_, last = fit(wide, beside, start=plain.weights)
    assert isinstance(last, Failed)
    assert "another network" in last.message


@pytest.mark.slow  # the exporter takes seconds
def test_the_graph_weighs_as_the_network_does(dataset: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    choice = Choice(SHAPE).eval()
    path = tmp_path / "choice.onnx"
    export_choice(choice, path)
    check_choice(choice, path, dataset)
    molecule = dataset.molecule(500)
    numbers = molecule.numbers[None]
    positions = molecule.positions[None].astype(np.float32)
    energies = np.array([2.0], dtype=np.float32)
    given = [torch.from_numpy(item) for item in (numbers, positions, energies)]
    with torch.inference_mode():
        mine = choice(*given).mean(dim=1)
    found = open_choice(path, "cpu", 1).run(numbers, positions, energies)
    np.testing.assert_allclose(found, mine, atol=1e-4)


def test_batches_hold_all_conformers_of_each_molecule_once(beside: Dataset) -> None:
    conformers = open_conformers(beside)
    shown = candidates(conformers, open_relaxed(beside))
    known = shown.is_known
    molecules = np.array([i for i in CHOSEN if conformers.count(i) > 1])
    loaded = ResidentConformers.load(shown, molecules, "cpu")
    seen = []
    for batch in loaded.batches(len(loaded), 7, torch.Generator().manual_seed(0), most=100):
        for row, place in enumerate(batch.index.tolist()):
            own = batch.owner == row
            i = molecules[place]
            assert int(own.sum()) == conformers.count(i)
            assert float(batch.energies[own][0]) == 0.0
            n = len(conformers.molecule(i))
            np.testing.assert_allclose(
                batch.positions[own][-1, :n],
                conformers.molecule(i, conformers.count(i) - 1).positions,
                atol=1e-5,
            )
            first = conformers.first[i]
            np.testing.assert_array_equal(
                batch.is_known[own], known[first : first + conformers.count(i)]
            )
            seen.append(place)
    assert sorted(seen) == list(range(len(molecules)))


def test_a_molecule_with_many_conformers_is_shown_its_own_and_others_by_turns(
    beside: Dataset,
) -> None:
    shown = candidates(open_conformers(beside), open_relaxed(beside), are_completed=True)
    molecules = np.flatnonzero(shown.tells)
    counts = np.diff(shown.first)[molecules]
    assert counts.max() > 3
    loaded = ResidentConformers.load(shown, molecules, "cpu")
    generator = torch.Generator().manual_seed(0)
    seen: set[tuple[int, float]] = set()
    for _ in range(40):
        for batch in loaded.batches(len(loaded), 7, generator, most=3):
            of_each = torch.bincount(batch.owner)
            np.testing.assert_array_equal(of_each, np.minimum(counts[batch.index], 3))
            known = torch.zeros(len(of_each)).index_add(0, batch.owner, batch.is_known.float())
            assert bool((known >= 1).all())
            molecule = batch.index[batch.owner].tolist()
            seen.update(zip(molecule, batch.energies.tolist(), strict=True))
    assert len(seen) == len(
        {
            (row, float(loaded.energies[k]))
            for row in range(len(molecules))
            for k in range(int(loaded.starts[row]), int(loaded.starts[row + 1]))
        }
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": "geometry"}, "approximate"),
        ({"targets": "conformer", "geometry": "approximate"}, "smiles"),
        ({"geometry": "smiles"}, "approximate"),
    ],
)
def test_what_cannot_be_learned_is_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]
