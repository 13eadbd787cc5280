"""One training on record, in this process and as a command that is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from databases import put_database
from mlflow import MlflowClient
from mlflow.entities import Run

from qm9flow.config import (
    DensityConfig,
    MPNNConfig,
    StudyConfig,
    TrainConfig,
    to_dict,
    train_from_dict,
)
from qm9flow.data.store import Dataset
from qm9flow.errors import CheckpointError, ConfigError, StudyBusyError, StudyError
from qm9flow.tracking.places import training_place
from qm9flow.tracking.stores import resolve_stores
from qm9flow.tuning.locks import FileLock
from qm9flow.workflows.console import Console
from qm9flow.workflows.single import Repeated, config_of_run, run_training, training_name
from qm9flow.workflows.start import find_start
from qm9flow.workflows.study import run_study

TINY = TrainConfig(
    model=MPNNConfig(conv_layers=1, fc_layers=1, hidden=4, edge_width=4, radial=4),
    train_size=64,
    val_size=32,
    batch_size=16,
    max_epochs=3,
    device="cpu",
    threads=1,
)
QUIET = Console(say=lambda text: None)
KEPT = Path(__file__).resolve().parent.parent / "release" / "format_3"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user's."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def used(here: Path) -> Path:
    """A folder in which MLflow's database is there already: making it takes longer than a test."""
    put_database(here)
    return here


def runs() -> list[Run]:
    """All runs, the newest first."""
    found = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db").search_runs(["0"])
    return sorted(found, key=lambda run: -run.info.start_time)


def test_a_training_leaves_curves_gradients_and_its_log(here: Path) -> None:
    assert run_training(TINY, QUIET, name="mine") is not None
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["kind"] == "training"
    assert run.data.tags["state"] == "complete"
    assert run.data.metrics["best/val/score"] <= run.data.metrics["val/score"]
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "gradients.npz", "model", "train.log"} <= files
    assert list((here / "mlruns" / "tensorboard" / "trainings" / "mine").glob("*tfevents*"))
    assert "epoch 3" in (here / "mlruns/state/trainings/mine/train.log").read_text()
    with (
        FileLock("another", training_place(resolve_stores(), "mine").state / "lock"),
        pytest.raises(StudyBusyError, match="training 'mine' is being run by process"),
    ):
        run_training(TINY, QUIET, name="mine")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train_size": 200_000}, "200"),
        ({"val_size": 100_000}, "val_size"),
        ({"device": "cuda"}, "GPU"),
    ],
)
def test_what_every_trial_would_fail_at_is_refused_before(
    here: Path, changes: dict[str, object], named: str
) -> None:
    import torch

    if "device" in changes and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match=named):
        run_study(StudyConfig(**{"n_trials": 1, **changes}), QUIET)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=named):
        run_training(TrainConfig(**changes), QUIET)  # type: ignore[arg-type]
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["", "it's", 'a"b', "a\nb", "a`b", "x" * 300, "ü" * 150])
def test_names_that_stores_cannot_search_for_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="study_name"):
        StudyConfig(study_name=name)
    if name:
        with pytest.raises(ConfigError, match="name"):
            run_training(TINY, QUIET, name=name)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_leaves_no_run_behind(here: Path) -> None:
    words = [sys.executable, "-m", "qm9flow", "train", "--name", "killed", "--device", "cpu"]
    words += ["--train-size", "4000", "--epochs", "3", "--threads", "1"]
    process = subprocess.Popen(words, start_new_session=True)
    checkpoint = here / "mlruns/state/trainings/killed/checkpoint.safetensors"
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert process.poll() is None, "the training ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [run.info.status for run in runs()] == ["RUNNING"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" not in done.stdout
    newest, killed = runs()
    assert (newest.info.status, killed.info.status) == ("FINISHED", "KILLED")
    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    history = client.get_metric_history(newest.info.run_id, "val/score")
    assert [point.step for point in history] == [1, 2, 3]


def test_another_training_of_the_name_is_refused_before_anything_is_on_record(used: Path) -> None:
    assert run_training(TINY, QUIET, name="mine") is not None
    with pytest.raises(CheckpointError, match="train_size 64, now 65"):
        run_training(replace(TINY, train_size=65), QUIET, name="mine")
    assert len(runs()) == 1
    assert run_training(replace(TINY, threads=2), QUIET, name="mine") is not None  # it had ended
    (used / "mlruns/state/trainings/mine/trained.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"trained\.json is damaged"):
        run_training(TINY, QUIET, name="mine")


def test_a_place_that_is_no_folder_is_an_error_that_says_so(here: Path) -> None:
    (here / "mlruns").mkdir()
    (here / "mlruns" / "state").write_text("")
    with pytest.raises(StudyError, match="cannot lock training 'mine'"):
        run_training(TINY, QUIET, name="mine")


def test_a_training_starts_from_a_model(used: Path) -> None:
    """The kept bundle's network is the starting point; its split comes with it."""
    start = find_start(str(KEPT))
    options = start.options({"val_size": 32, "max_epochs": 1, "device": "cpu"})
    train = train_from_dict({**options, "recipe": "group"})
    assert train.model == start.record.train.model
    assert train.train_size == start.record.train.train_size
    assert run_training(train, QUIET, name="further", start=start) is not None
    (run,) = runs()
    assert run.data.tags["starts_from"] == str(KEPT)
    repeated, _ = config_of_run(run.info.run_id)
    with pytest.raises(ConfigError, match="name the model that has them"):
        run_training(repeated, QUIET, name="again")
    assert run_training(repeated, QUIET, name="again", start=start) is not None
    repeats = Repeated(run.info.run_id, {})
    assert training_name(repeated, repeats) != training_name(repeated)
    elsewhere = replace(repeated, threads=7, compile=True)
    assert training_name(elsewhere) == training_name(repeated)


def test_a_training_that_had_ended_says_so(used: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        assert run_training(TINY, Console(say=said.append), name="mine") is not None
    plans = [line for line in said if line.startswith("training mine")]
    assert plans[0].startswith("training mine: mpnn, 64 molecules of split seed, 32 for validation")
    assert plans[1] == (
        "training mine had ended before: nothing is trained; another --name trains anew"
    )


def test_heads_may_be_added_to_a_network_that_has_none_and_nothing_else() -> None:
    kept = find_start(str(KEPT.with_name("format_4")))
    with_heads = to_dict(kept.record.train.model)
    none = replace(kept.record.train, model=replace(kept.record.train.model, heads=0))
    start = replace(kept, record=replace(kept.record, train=none))
    assert start.options({})["model"] == {**with_heads, "heads": 0}
    assert start.options({"model": with_heads})["model"] == with_heads
    for other in ({**with_heads, "hidden": 5}, {"architecture": "painn"}):
        with pytest.raises(ConfigError, match="model comes with the weights"):
            start.options({"model": other})
    with pytest.raises(ConfigError, match="model comes with the weights"):
        kept.options({"model": {**with_heads, "heads": 9}})


def test_a_run_of_a_time_without_heads_is_repeated_without(used: Path) -> None:
    assert run_training(TINY, QUIET, name="old") is not None
    (run,) = runs()
    values = to_dict(replace(TINY, model=DensityConfig(1, 8, 4, 4, 4)))
    del values["model"]["heads"]
    client = MlflowClient(f"sqlite:///{used}/mlflow.db")
    client.log_dict(run.info.run_id, values, "config.json")
    repeated, _ = config_of_run(run.info.run_id)
    assert repeated.model == DensityConfig(1, 8, 4, 4, 4, heads=0)


@pytest.mark.parametrize(
    "given",
    [
        {"split": "seed"},
        {"targets": "raw"},
        {"model": {"architecture": "painn"}},
        {"train_size": 64},
        {"start": "0" * 64},
    ],
)
def test_what_comes_with_the_weights_cannot_be_chosen(given: dict[str, object]) -> None:
    start = find_start(str(KEPT))
    with pytest.raises(ConfigError, match="weights"):
        start.options(given)


def test_a_start_on_other_data_is_refused(dataset: Dataset) -> None:
    start = find_start(str(KEPT))
    other = replace(start, record=replace(start.record, data_digest="0" * 64))
    with pytest.raises(ConfigError, match="trained on data 000000000000"):
        other.check(dataset)
    start.check(dataset)


def test_a_start_that_learned_other_numbers_is_refused(dataset: Dataset) -> None:
    """Bundles of format 1 have another zero of r2."""
    start = find_start(str(KEPT.with_name("format_1")))
    with pytest.raises(ConfigError, match="encoded targets in another way"):
        start.check(dataset)


def test_a_stop_waits_for_an_epoch_and_not_for_a_checkpoint(used: Path) -> None:
    rare = replace(TINY, max_epochs=50, checkpoint_every=1000)
    for begins, ends in ((1, 2), (3, 4)):
        said: list[str] = []

        def stop(last: str = f"epoch {ends}:", said: list[str] = said) -> bool:
            return any(last in line for line in said)

        assert run_training(rare, Console(say=said.append, stop=stop), name="rare") is None
        assert said[-1] == "stopped; the same command goes on"
        epochs = [line.split()[1] for line in said if line.strip().startswith("epoch ")]
        assert epochs == [f"{number}:" for number in range(begins, ends + 1)]
