"""`mlflow run` from an empty folder: what a newcomer types, and what it leaves there."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from qm9flow.cli.main import cli, main
from qm9flow.evaluation.text_tables import number
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.smiles import from_smiles
from qm9flow.properties import TARGETS
from qm9flow.registry.versions import fetch, resolve
from qm9flow.training.events import StopReason

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "n_trials": "3",
    "train_size": "256",
    "max_epochs": "2",
    "final_minutes": "0.05",
    "seed_pretrained": "false",
}
ONE_BY_ONE = {"n_jobs": "1"}
"""In the process itself: starting Ray takes longer than these trials."""
EVALUATION = {
    "evaluation.json",
    "evaluation.md",
    "targets.csv",
    "coverage.csv",
    "group_coverage.csv",
    "literature.csv",
    "groups.csv",
    "worst.csv",
    "molecules.csv",
    "parity.png",
    "residuals.png",
    "groups.png",
    "worst.png",
}


def command(**parameters: str) -> list[str]:
    words = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    for name, value in parameters.items():
        words += ["-P", f"{name}={value}"]
    return words


def environment() -> dict[str, str]:
    """The interpreter of the tests comes first, as in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}


def project(folder: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(**parameters),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


def runs_of(folder: Path) -> tuple[list[Run], list[Run]]:
    """Parents and nested runs."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs(["0"], max_results=1000)
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in nested], nested


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small study has run to its end."""
    folder = tmp_path_factory.mktemp("project")
    done = project(folder, **SMALL, **ONE_BY_ONE)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_one_parent_and_a_run_for_each_trial(finished: Path) -> None:
    parents, nested = runs_of(finished)
    assert len(parents) == 1
    assert len(nested) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parents[0].info.run_id}
    assert {run.info.status for run in parents + nested} == {"FINISHED"}


def test_trials_are_on_record(finished: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    for run in runs_of(finished)[1]:
        assert {"conv_layers", "hidden", "batch_size", "learning_rate"} <= set(run.data.params)
        assert client.get_metric_history(run.info.run_id, "val/score")
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert "gradients.npz" in files
        assert ("model" in files) == (run.data.tags["state"] == "complete")
        assert run.data.tags["verdict"] in {"healthy", *get_args(StopReason)}


def test_the_parent_shows_the_study(finished: Path) -> None:
    parent = runs_of(finished)[0][0]
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.json", "config.json", "report", "study.log", "final"} <= files
    assert client.get_metric_history(parent.info.run_id, "final/val/score")
    assert parent.data.tags["model_version"] == "1"
    assert parent.data.params["cfg.n_trials"] == "3"
    assert np.isfinite(parent.data.metrics["final/test/u0/mae"])
    assert {item.dataset.name for item in parent.inputs.dataset_inputs} == {"QM9"}


def test_the_versions_evaluation_lies_with_the_study(finished: Path) -> None:
    parent = runs_of(finished)[0][0]
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    place = "evaluation/version_1/test"
    listed = client.list_artifacts(parent.info.run_id, place)
    assert {Path(item.path).name for item in listed} == EVALUATION
    path = client.download_artifacts(parent.info.run_id, f"{place}/evaluation.json")
    found = json.loads(Path(path).read_text())
    assert (found["model"]["version"], found["model"]["alias"]) == (1, "champion")
    assert (found["own"]["split"], found["own"]["molecules"]) == ("seed", 19_625)
    recorded = parent.data.metrics
    for target, row in found["standard"]["targets"].items():
        assert row["mae"] == pytest.approx(recorded[f"final/test/{target}/mae"])
    assert {"schnet", "painn"} <= {item["name"].lower() for item in found["literature"]["networks"]}
    assert {group["name"] for group in found["groups"]["element"]} == {
        f"with {symbol}" for symbol in "HCNOF"
    }
    assert len(found["worst"]["gap"]) == 5


def test_the_report_shows_the_registered_network(finished: Path) -> None:
    parent = runs_of(finished)[0][0]
    client = MlflowClient(f"sqlite:///{finished / 'mlflow.db'}")
    listed = {Path(item.path).name for item in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report.html", "history.png", "pareto.png", "slices.png", "survival.png"} <= listed
    path = client.download_artifacts(parent.info.run_id, "report/report.html")
    page = Path(path).read_text()
    assert page.count("<section ") >= 9
    assert "<h2>The champion: version 1</h2>" in page
    assert "Predicted over true values" in page
    assert "SchNet<br>2017" in page
    mae = parent.data.metrics["final/test/gap/mae"]
    assert f'<td class="n ours">{number(mae, 3)}</td>' in page
    # four letters of a picture's may spell it, too
    pages = re.sub(r"<script.*?</script>|data:image/[^\"')]*", "", page, flags=re.DOTALL)
    assert "http" not in pages
    assert len(page) < 8_000_000


def test_the_report_is_written_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished / 'mlflow.db'}")
    words = ["report", "", "--study-name", "", "--output", "again"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert f"optuna-dashboard sqlite:///{finished}/mlruns/optuna.db" in done.stdout
    assert "the champion" not in done.stdout
    assert "The champion: version 1" in (finished / "again" / "report.html").read_text()


def test_stores_lie_in_the_callers_folder(finished: Path) -> None:
    assert (finished / "mlruns" / "optuna.db").exists()
    assert list((finished / "mlruns" / "tensorboard").rglob("*tfevents*"))
    assert not (ROOT / "mlruns" / "0" / runs_of(finished)[0][0].info.run_id).exists()


def test_the_champion_predicts(finished: Path) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    version = resolve("champion", uri)
    assert version.tags["release_id"].startswith("seed-")
    predictor = Predictor(fetch(version, finished / "bundle", uri))
    values = predictor.predict([from_smiles("CCO")])[0].values
    assert set(values) == set(TARGETS)
    assert values["gap"] == pytest.approx(values["lumo"] - values["homo"], abs=1e-9)


def test_a_trial_can_be_repeated(finished: Path) -> None:
    trial = next(run for run in runs_of(finished)[1] if run.data.tags["state"] == "complete")
    done = subprocess.run(
        [sys.executable, "-m", "qm9flow", "train", "--from-run", trial.info.run_id],
        cwd=finished,
        env={**environment(), "MLFLOW_TRACKING_URI": f"sqlite:///{finished / 'mlflow.db'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ": the same" in done.stdout


@pytest.mark.parametrize(
    ("name", "value"), [("n_trials", "abc"), ("sampler", "best"), ("train_size", "0")]
)
def test_a_bad_parameter_is_named(
    stores_in: Path,
    name: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["study", "run", f"--{name.replace('_', '-')}", value]
    monkeypatch.setattr(sys, "argv", ["qm9flow", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert name.replace("_", "-") in said.replace("_", "-")
    assert "Traceback" not in said
    assert list(stores_in.iterdir()) == []


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    """kill -9 of the whole project at several instants, then the same command to the end."""
    parameters = {**SMALL, "study_name": "killed", "n_trials": "5"}
    for seconds in (14, 18, 22):
        process = subprocess.Popen(
            command(**parameters),
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = project(tmp_path, **parameters)
    assert done.returncode == 0, done.stdout + done.stderr
    parents, nested = runs_of(tmp_path)
    newest = max(parents, key=lambda run: run.info.start_time)
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {newest.info.run_id}
    assert "RUNNING" not in {run.info.status for run in parents + nested}
    numbers = sorted(int(run.data.tags["trial"]) for run in nested)
    assert numbers == list(range(5))
    shown = subprocess.run(
        [sys.executable, "-m", "qm9flow", "study", "list", "--json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    (study,) = json.loads(shown.stdout)
    assert sum(study["states"].values()) == 5


def wait_for_a_trial(folder: Path, seconds: float = 200.0) -> None:
    """Until a trial of the study there has trained an epoch."""
    deadline = time.monotonic() + seconds
    while not list((folder / "mlruns" / "state").rglob("checkpoints/*")):
        assert time.monotonic() < deadline, "no trial has trained an epoch"
        time.sleep(0.2)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    parameters = {**SMALL, "study_name": "stopped", "n_trials": "50", "max_epochs": "9"}
    process = subprocess.Popen(
        command(**parameters),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for_a_trial(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert "qm9flow study resume stopped" in output
    assert process.returncode != 0
    parents, nested = runs_of(tmp_path)
    assert "RUNNING" not in {run.info.status for run in parents + nested}
