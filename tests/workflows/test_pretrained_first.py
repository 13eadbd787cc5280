"""The pretrained model enters an empty registry first, and later models have to beat it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import served
import shipping
from mlflow import MlflowClient
from mlflow.entities import Run
from registering import Registry, open_registry

from qm9flow import locations
from qm9flow.config import GeometrySource, MPNNConfig, StudyConfig, TrainConfig
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.inference.judged import Judged
from qm9flow.inference.predictor import Predictor
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.versions import REQUIRED_TAGS, list_versions, resolve, verify
from qm9flow.tracking.curves import fetch_curves
from qm9flow.workflows.console import Console
from qm9flow.workflows.judging import judge_molecules
from qm9flow.workflows.pretrained import seed_registry
from qm9flow.workflows.publish import Published
from qm9flow.workflows.single import config_of_run, run_training
from qm9flow.workflows.study import run_study

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
def shipped(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model to come with qm9flow."""
    return shipping.ship(dataset, tmp_path_factory.mktemp("shipped"))


@pytest.fixture
def registry(
    stores_in: Path, dataset: Dataset, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    """An empty registry in the current folder, in a qm9flow with that model."""
    shipping.use(monkeypatch, shipped)
    return open_registry(stores_in, served.bundle(dataset))


def seed(registry: Registry, console: Console = QUIET) -> int | None:
    """The number of the pretrained model's version, None if it was left out."""
    uri = f"sqlite:///{registry.folder}/mlflow.db"
    version = seed_registry(uri, registry.run_id, console)
    return None if version is None else version.number


def pretrained_runs(client: MlflowClient) -> list[Run]:
    everywhere = [item.experiment_id for item in client.search_experiments()]
    return list(client.search_runs(everywhere, "tags.kind = 'pretrained'"))


def add(registry: Registry, dataset: Dataset, name: str, factor: float) -> str:
    """Register and judge a version on the same data; what it became."""
    version = registry.add(name, factor, data_digest=dataset.digest)
    return promote(version).alias


def test_it_becomes_version_1_and_champion_with_a_run_of_its_own(registry: Registry) -> None:
    lines: list[str] = []
    assert seed(registry, Console(say=lines.append)) == 1
    assert seed(registry, Console(say=lines.append)) == 1
    assert len(lines) == 1
    (version,) = list_versions()
    verify(version)
    assert version.aliases == ("champion",)
    assert set(REQUIRED_TAGS) <= set(version.tags)
    assert version.tags["release_id"].startswith("pretrained/")
    assert version.mae("val") == {"homo": 0.05}
    (run,) = pretrained_runs(registry.client)
    assert run.info.run_id == version.run_id
    assert (run.info.run_name, run.info.status) == ("pretrained", "FINISHED")
    beside = registry.client.get_run(registry.run_id)
    assert run.info.experiment_id == beside.info.experiment_id
    assert run.data.metrics["final/val/homo/mae"] == 0.05
    assert run.data.metrics["final/val/score"] == pytest.approx(version.score)
    assert run.data.tags["state"] == "complete"
    files = {item.path for item in registry.client.list_artifacts(run.info.run_id)}
    assert {"card.md", "config.json"} <= files
    assert fetch_curves(locations.tracking_uri(), run.info.run_id) == shipping.CURVES
    train, _ = config_of_run(run.info.run_id)
    assert train.train_size == 2000  # it can be repeated as any training


def test_a_worse_model_stays_behind_it_and_a_better_one_takes_its_place(
    registry: Registry, dataset: Dataset
) -> None:
    seed(registry)
    assert add(registry, dataset, "worse", 1.5) == "challenger"
    assert resolve("champion").number == 1
    assert add(registry, dataset, "better", 0.5) == "champion"
    assert seed(registry) == 1  # which changes nothing
    assert [item.aliases for item in list_versions()] == [
        ("champion",),
        ("challenger",),
        ("previous",),
    ]
    assert rollback().number == 1
    assert seed(registry) == 1
    assert resolve("champion").number == 1
    assert resolve("previous").number == 3


def test_other_data_do_not_compare(registry: Registry) -> None:
    seed(registry)
    decision = promote(registry.add("other data", 0.1)).decision
    assert (decision.passes, decision.reason) == (False, "other_data")


def test_a_registry_in_use_is_left_alone(registry: Registry) -> None:
    registry.add("mine")
    assert seed(registry) is None
    assert [item.number for item in list_versions()] == [1]
    assert pretrained_runs(registry.client) == []


@pytest.mark.parametrize(
    "step",
    [
        "log_artifact",
        "log_batch",
        "set_terminated",
        "log_model_artifacts",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    ],
)
def test_killed_at_any_step_it_goes_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, _die)
        with pytest.raises(KeyboardInterrupt):
            seed(registry)
    assert seed(registry) == 1
    (version,) = list_versions()
    verify(version)
    assert version.aliases == ("champion",)
    assert version.tags["gate/passes"] == "true"
    (run,) = pretrained_runs(registry.client)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/val/homo/mae"] == 0.05
    assert len(registry.client.get_metric_history(run.info.run_id, "final/val/homo/mae")) == 1


def _die(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_killed_before_it_was_champion_it_does_not_push_another_one_out(
    registry: Registry, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", _die)
        with pytest.raises(KeyboardInterrupt):
            seed(registry)
    assert add(registry, dataset, "mine", 1.5) == "champion"
    assert seed(registry) == 1
    assert resolve("champion").number == 2


@pytest.mark.slow
def test_two_processes_register_it_once(registry: Registry, shipped: Path) -> None:
    code = shipping.CODE.format(folder=str(shipped)) + (
        "from qm9flow.workflows.console import Console\n"
        "from qm9flow.workflows.pretrained import seed_registry\n"
        "print(seed_registry(sys.argv[1], sys.argv[2], Console(say=print)).number)\n"
    )
    words = [sys.executable, "-c", code, f"sqlite:///{registry.folder}/mlflow.db", registry.run_id]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=200)[0].splitlines() for process in both]
    assert [lines[-1] for lines in said] == ["1", "1"]
    assert sorted(len(lines) for lines in said) == [1, 2]  # one of them did it
    assert len(list_versions()) == len(pretrained_runs(registry.client)) == 1


@pytest.mark.parametrize("file", ["validation.npz", "bundle/weights.safetensors"])
def test_a_damaged_one_is_left_out_in_a_line(registry: Registry, shipped: Path, file: str) -> None:
    with (shipped / file).open("r+b") as damaged:
        damaged.truncate(100)
    lines: list[str] = []
    assert seed(registry, Console(say=lines.append)) is None
    (line,) = lines
    assert line.startswith("the pretrained model is left out: ")
    assert "\n" not in line
    assert list_versions() == []


def trained(lines: list[str], **options: bool) -> Published:
    console = Console(say=lines.append)
    done = run_training(TINY, console, name="tiny", is_to_be_registered=True, **options)
    assert done is not None
    assert done[1] is not None
    return done[1]


def with_good_evidence(dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pretrained model that no small network beats, judged on `standard`'s molecules."""
    shipping.use(monkeypatch, shipping.ship(dataset, folder, factor=1e-3, n=10_000))


@pytest.mark.slow
def test_a_training_meets_it_in_an_empty_folder(
    stores_in: Path,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_good_evidence(dataset, tmp_path_factory.mktemp("good"), monkeypatch)
    lines: list[str] = []
    mine = trained(lines)
    said = "\n".join(lines)
    assert (mine.version.number, mine.alias) == (2, "challenger")
    assert resolve("champion").number == 1
    assert "no model is registered: the pretrained one enters first, as champion" in said
    assert "qm9flow version 2 is challenger: validation score" in said
    assert "The pretrained model, version 1, stays champion: `qm9flow promote 2 --force`" in said
    assert "--seed-pretrained false" in said
    promote(resolve(2), force=True)
    again: list[str] = []
    assert trained(again).version.number == 2
    assert "stays champion" not in "\n".join(again)


@pytest.mark.slow
def test_a_training_may_leave_it_out(
    stores_in: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping.use(monkeypatch, shipped)
    lines: list[str] = []
    mine = trained(lines, seed_pretrained=False)
    assert (mine.version.number, mine.alias, mine.pretrained) == (1, "champion", None)
    assert "pretrained" not in "\n".join(lines)


@pytest.mark.slow
def test_a_training_has_its_evaluation_and_predicts_test_molecules_once(
    stores_in: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted: list[np.ndarray] = []

    def counting(
        predictor: Predictor,
        source: GeometrySource,
        dataset: Dataset,
        molecules: np.ndarray,
        console: Console,
    ) -> tuple[Judged, np.ndarray]:
        predicted.append(molecules)
        return judge_molecules(predictor, source, dataset, molecules, console)

    monkeypatch.setattr("qm9flow.workflows.bundling.judge_molecules", counting)
    mine = trained([], seed_pretrained=False)
    test = make_split(TINY.split, len(dataset)).test
    times = np.bincount(np.concatenate(predicted), minlength=len(dataset))
    assert (times[test] == 1).all()
    client = MlflowClient(f"sqlite:///{stores_in}/mlflow.db")
    listed = client.list_artifacts(mine.version.run_id, "evaluation/version_1/test")
    files = {Path(item.path).name for item in listed}
    assert {"evaluation.json", "groups.csv", "worst.png", "parity.png", "literature.csv"} <= files


@pytest.mark.slow
def test_what_cannot_be_drawn_does_not_undo_the_registration(
    stores_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qm9flow.workflows.publish.write_assessment", full)
    lines: list[str] = []
    mine = trained(lines, seed_pretrained=False)
    assert (mine.version.number, mine.evaluation) == (1, None)
    assert any(
        line.startswith("no evaluation: cannot write") and line.endswith("No space left on device")
        for line in lines
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_seeded", [True, False])
def test_a_study_meets_it_unless_told_otherwise(
    stores_in: Path,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    is_seeded: bool,
) -> None:
    with_good_evidence(dataset, tmp_path_factory.mktemp("good"), monkeypatch)
    study = StudyConfig(
        n_trials=1,
        train_size=128,
        val_size=64,
        max_epochs=1,
        final_minutes=0.02,
        seed_pretrained=is_seeded,
    )
    lines: list[str] = []
    outcome = run_study(study, Console(say=lines.append))
    assert outcome is not None
    version = outcome.published.version
    assert (version.number, outcome.published.alias) == (
        (2, "challenger") if is_seeded else (1, "champion")
    )
    assert ("stays champion" in lines[-1]) == is_seeded
    assert len(pretrained_runs(MlflowClient(f"sqlite:///{stores_in}/mlflow.db"))) == is_seeded


def test_the_table_shows_its_test_errors(
    registry: Registry, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qm9flow.evaluation.baseline import linear_baseline
    from qm9flow.evaluation.tables import error_table

    split = make_split("standard", len(dataset))
    truth = dataset.truth()[split.test]
    table = error_table(truth, truth, linear_baseline(dataset, split, split.test))
    first = registry.add("first", data_digest=dataset.digest, pretrained="0.1.0")
    version = registry.add("mine", data_digest=dataset.digest)
    published = Published(version, promote(version), table, table, registry.bundle, first)
    lines = published.table().splitlines()
    assert lines[1].split() == [
        "target",
        "unit",
        "validation",
        "test",
        "pretrained",
        "linear",
        "chemical",
    ]
    gap = next(line.split() for line in lines if line.startswith("gap"))
    assert gap[2:5] == ["0", "0", "0.5"]
    assert {len(line) for line in lines[1:21]} == {80}
    other = registry.add("other data")
    published = Published(other, promote(other), table, table, registry.bundle, first)
    assert "pretrained" not in published.table()
