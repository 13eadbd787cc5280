"""A network for DFT's geometries takes over the champion's networks for others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import served
import shipping
from click.testing import CliRunner
from mlflow import MlflowClient
from registering import Registry, open_registry

import qm9flow
from qm9flow.cli.main import cli
from qm9flow.config import MPNNConfig, StudyConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Molecule
from qm9flow.molecules.smiles import from_smiles
from qm9flow.registry import pretrained
from qm9flow.registry.aliases import promote
from qm9flow.registry.find import FoundModel, find_model
from qm9flow.registry.versions import load_evidence, resolve
from qm9flow.release.bundle import Companions, read_bundle
from qm9flow.release.record import BundleRecord, Origin
from qm9flow.workflows.console import Console
from qm9flow.workflows.evaluate import subject_of
from qm9flow.workflows.inheritance import inherit, inherited_errors
from qm9flow.workflows.pretrained import seed_registry
from qm9flow.workflows.single import run_training
from qm9flow.workflows.study import run_study

RELEASED = Path(__file__).resolve().parent.parent / "release"
INHERITED = RELEASED / "format_8"
SOURCES = {"smiles", "approximate"}
COMPANIONS = (
    "rough.onnx",
    "choice.onnx",
    "rough.safetensors",
    "refiner.safetensors",
    "choice.safetensors",
)
QUIET = Console(say=lambda text: None)
TINY = TrainConfig(
    model=MPNNConfig(conv_layers=1, fc_layers=1, hidden=4, edge_width=4, radial=4),
    train_size=64,
    val_size=32,
    batch_size=16,
    max_epochs=1,
    device="cpu",
    threads=1,
)


@pytest.fixture
def shipped(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model with networks for other geometries comes with qm9flow."""
    folder = shipping.ship_with_companions(tmp_path_factory.mktemp("shipped"))
    return shipping.use(monkeypatch, folder)


@pytest.fixture
def registry(stores_in: Path, dataset: Dataset, shipped: Path) -> Registry:
    """An empty registry in the current folder."""
    return open_registry(stores_in, served.bundle(dataset))


def uri() -> str:
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def seed(registry: Registry) -> None:
    assert seed_registry(uri(), registry.run_id, QUIET) is not None


def taken_over(dataset: Dataset, train: TrainConfig = TINY) -> tuple[Companions | None, str]:
    """What a new network gets, and what is said of it."""
    lines: list[str] = []
    found = inherit(train, dataset, Path("made"), uri(), Console(say=lines.append))
    (line,) = lines
    return found, line


def origin_of_shipped() -> Origin:
    record, _ = read_bundle(shipping.COMPANIONS)
    return Origin(
        f"the pretrained model of qm9flow {qm9flow.__version__}",
        record.files["weights.safetensors"],
    )


def test_they_are_the_pretrained_models_where_that_is_champion(
    registry: Registry, dataset: Dataset
) -> None:
    seed(registry)
    found, line = taken_over(dataset)
    assert found is not None
    assert line == "for SMILES and approximate geometries the networks of version 1 are taken over"
    assert found.record.inherited == origin_of_shipped()
    theirs, _ = read_bundle(shipping.COMPANIONS)
    assert replace(found.record, inherited=None) == theirs.rough
    assert set(found.calibration) == SOURCES
    record = replace(theirs, rough=found.record)
    kept = inherited_errors(Path("made"), record)
    for source, errors in load_evidence(resolve(1)).elsewhere.items():
        np.testing.assert_array_equal(kept[source], errors)
    assert inherited_errors(Path("nowhere"), theirs) == {}  # made for that bundle


def test_passed_on_again_they_keep_their_origin(registry: Registry, dataset: Dataset) -> None:
    registry.add("heir", bundle=INHERITED, data_digest=dataset.digest)
    promote(resolve(1))
    found, _ = taken_over(dataset)
    assert found is not None
    assert found.record.inherited is not None
    assert found.record.inherited.model == "version 7"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"targets": "raw"}, "those of version 1, the champion, predict other targets"),
        ({"split_seed": 1}, "those of version 1, the champion, were trained on other molecules"),
    ],
)
def test_those_that_do_not_fit_are_left(
    registry: Registry, dataset: Dataset, options: dict[str, object], why: str
) -> None:
    seed(registry)
    found, line = taken_over(dataset, replace(TINY, **options))  # type: ignore[arg-type]
    assert found is None
    assert line == f"the new version has no networks for SMILES and approximate geometries: {why}"


def test_of_other_data_they_are_left(registry: Registry, dataset: Dataset) -> None:
    seed(registry)
    found, line = taken_over(replace(dataset, digest="other"))
    assert found is None
    assert line.endswith("were trained on other molecules")


def test_where_there_is_no_champion_there_are_none(registry: Registry, dataset: Dataset) -> None:
    found, line = taken_over(dataset)
    assert found is None
    assert line.endswith(": no version is champion")


@pytest.mark.parametrize("name", [None, "format_6", "format_3"])
def test_where_the_champion_has_none_there_are_none(
    registry: Registry, dataset: Dataset, name: str | None
) -> None:
    registry.add("alone", bundle=RELEASED / name if name else None)
    promote(resolve(1))
    found, line = taken_over(dataset)
    assert found is None
    assert line.endswith(": version 1, the champion, has none")


def test_of_a_damaged_champion_there_are_none(
    registry: Registry, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QM9FLOW_CACHE", str(registry.folder / "cache"))
    seed(registry)
    (stored,) = (registry.folder / "mlruns").rglob("rough.onnx")
    stored.write_bytes(stored.read_bytes()[:-1])
    found, line = taken_over(dataset)
    assert found is None
    assert "the bundle of version 1" in line
    assert "differs from what was registered" in line


def test_a_record_names_what_is_wrong_with_the_origin() -> None:
    config = json.loads((INHERITED / "config.json").read_text())
    del config["rough"]["inherited"]["weights"]
    with pytest.raises(BundleError, match="rough: inherited lacks the key 'weights'"):
        BundleRecord.from_json(json.dumps(config), "here")


def test_they_are_evaluated_on_their_own_split(dataset: Dataset) -> None:
    """Test molecules of the main network's may be among their training molecules."""
    record, _ = read_bundle(INHERITED)
    found = FoundModel(INHERITED)
    assert subject_of(found, record, dataset).split.name == "seed"
    subject = subject_of(found, record, dataset, "smiles")
    assert (subject.split.name, subject.train_molecules) == ("standard", 2000)
    assert subject.architecture == "density"


def from_ethanol(bundle: Path) -> tuple[Prediction, Prediction]:
    """From its SMILES, and from a geometry said to be DFT's."""
    ethanol = from_smiles("CCO")
    shown = [ethanol, Molecule(ethanol.numbers, ethanol.positions[0])]
    of_smiles, of_dft = Predictor(bundle, provider="cpu").predict(shown)
    return of_smiles, of_dft


def test_the_kept_heir_answers_smiles_as_its_model_did() -> None:
    ours, theirs = from_ethanol(INHERITED), from_ethanol(shipping.COMPANIONS)
    assert ours[0] == theirs[0]
    assert ours[1].values["u0"] != theirs[1].values["u0"]


@pytest.mark.slow
def test_a_studys_network_takes_the_champions_place_and_leaves_smiles_as_they_were(
    stores_in: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = tmp_path_factory.mktemp("poor")
    shipping.use(monkeypatch, shipping.ship_with_companions(poor, factor=1000.0, n=10_000))
    study = StudyConfig(
        n_trials=1, train_size=128, val_size=64, max_epochs=1, final_minutes=0.02, n_jobs=1
    )
    lines: list[str] = []
    outcome = run_study(study, Console(say=lines.append))
    assert outcome is not None
    assert (outcome.published.version.number, outcome.published.alias) == (2, "champion")
    assert outcome.published.elsewhere == {}  # nothing of it was measured again
    said = "\n".join(lines)
    assert "the networks of version 1 are taken over" in said
    assert "; from approximate and smiles: the same as version 1" in said
    assert "a network for geometries" not in said

    bundle = find_model("champion").bundle
    ours, theirs = from_ethanol(bundle), from_ethanol(poor / "bundle")
    assert ours[0] == theirs[0]  # values, intervals, domain
    assert ours[1].values["u0"] != theirs[1].values["u0"]
    assert ours[1].intervals["u0"] is not None
    for name in COMPANIONS:
        assert (bundle / name).read_bytes() == (poor / "bundle" / name).read_bytes()
    record, _ = read_bundle(bundle)
    assert record.rough is not None
    assert record.rough.inherited == origin_of_shipped()
    card = (bundle / "card.md").read_text()
    assert f"are those of {origin_of_shipped().model}, unchanged" in card
    assert origin_of_shipped().weights in card
    first, second = resolve(1), resolve(2)
    for source, errors in load_evidence(first).elsewhere.items():
        np.testing.assert_array_equal(load_evidence(second).elsewhere[source], errors)
    name = "smiles/test/homo/mae"
    assert second.tags[name] == first.tags[name]
    _comes_with_qm9flow_now(stores_in, monkeypatch)


def _comes_with_qm9flow_now(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make pretrained` does, and a registry that begins with what came of it."""
    made = folder / "pretrained"
    words = ["--output", made / pretrained.BUNDLE, "--evidence", made / "validation.npz"]
    words += ["--curves", made / pretrained.CURVES]
    done = CliRunner().invoke(cli, ["export", "2", *map(str, words)])
    assert done.exit_code == 0, done.output
    shipping.use(monkeypatch, made)
    (folder / "fresh").mkdir()
    monkeypatch.chdir(folder / "fresh")
    fresh = open_registry(folder / "fresh", made / pretrained.BUNDLE)
    seed(fresh)
    assert load_evidence(resolve(1)).elsewhere.keys() == SOURCES
    assert resolve(1).aliases == ("champion",)


@pytest.mark.slow
def test_killed_before_its_version_it_goes_on_with_what_it_had_taken_over(
    stores_in: Path, shipped: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("qm9flow.workflows.publish.register", die)
        assert run_training(TINY, QUIET, name="tiny", is_to_be_registered=True) is None
    theirs = load_evidence(resolve(1)).elsewhere
    registry = Registry(stores_in, MlflowClient(uri()), resolve(1).run_id, served.bundle(dataset))
    registry.add("other", bundle=RELEASED / "format_6")
    promote(resolve(2), force=True)
    done = run_training(TINY, QUIET, name="tiny", is_to_be_registered=True)
    assert done is not None
    assert done[1] is not None
    assert done[1].version.number == 3
    ours = load_evidence(resolve(3)).elsewhere
    assert ours.keys() == SOURCES
    for source, errors in theirs.items():
        np.testing.assert_array_equal(ours[source], errors)
