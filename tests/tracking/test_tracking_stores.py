import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from qm9flow.errors import ConfigError, TrackingError
from qm9flow.tracking.stores import Stores, connect, find_experiment, resolve_stores

SCRIPT = """
import json, sys
from qm9flow.tracking.stores import connect, find_experiment, resolve_stores
from qm9flow.tracking.study import StudyTracker
stores = resolve_stores("sqlite:///mine.db")
study = StudyTracker.open(stores, "moved", {"n_trials": 1})
trial = study.open_trial(0, {"hidden": 4})
trial.save_model(b"weights", {"hidden": 4})
trial.finish("complete")
study.finish("FINISHED")
heavy = [name for name in ("torch", "optuna", "ray", "tensorflow") if name in sys.modules]
print(json.dumps({"parent": study.parent_run_id, "child": trial.run_id, "heavy": heavy,
                  "optuna": stores.optuna_url, "left": "MLFLOW_RUN_ID" in __import__("os").environ,
                  "experiment": study.experiment_id}))
"""


def run_elsewhere(folder: Path, **environment: str) -> dict[str, object]:
    """Run the script in a folder that is not the store's."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_default_stores_are_beside_mlflows_database(stores_in: Path) -> None:
    stores = resolve_stores()
    assert stores.tracking_uri == f"sqlite:///{stores_in}/mlflow.db"
    assert stores.optuna_url == f"sqlite:///{stores_in}/mlruns/optuna.db"
    assert stores.default_optuna_url == stores.optuna_url
    assert stores.tensorboard_dir == stores_in / "mlruns" / "tensorboard"
    assert list(stores_in.iterdir()) == []


def test_relative_storage_belongs_to_the_callers_folder(
    stores_in: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_stores("sqlite:///my.db").optuna_url == f"sqlite:///{stores_in}/my.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stores_in}/mlflow.db")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    assert resolve_stores("sqlite:///my.db").optuna_url == f"sqlite:///{stores_in}/my.db"
    with_options = "sqlite+pysqlite:////abs/my.db?timeout=3"
    assert resolve_stores(with_options).optuna_url == with_options
    assert resolve_stores("postgresql://host/db").optuna_url == "postgresql://host/db"


def test_folder_is_no_store(stores_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(ConfigError):
        resolve_stores()


def test_what_is_no_database_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is not a database, only a file of that name")
    stores = Stores(
        f"sqlite:///{tmp_path}/mlflow.db", "", tmp_path / "tb", tmp_path / "m" / "state"
    )
    with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used"):
        connect(stores)


@pytest.mark.parametrize("lost", ["the version", "a table"])
def test_half_made_database_is_said_to_be_one(stores: Stores, tmp_path: Path, lost: str) -> None:
    path = tmp_path / "mlflow.db"
    shutil.copy(stores.base.parent / "mlflow.db", path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("delete from alembic_version")
        if lost == "a table":
            database.execute("drop table webhook_events")
        database.commit()
    if lost == "the version":
        message = "out-of-date database schema"  # MLflow's own words, in one line
    else:
        message = r"mlflow\.db cannot be used .*incomplete.*killed.*move it away"
    with pytest.raises(TrackingError, match=message) as caught:
        connect(Stores(f"sqlite:///{path}", "", tmp_path / "tb", tmp_path / "m" / "state"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.slow
def test_killed_while_mlflow_makes_its_database(stores_in: Path) -> None:
    code = "from qm9flow.tracking.stores import *; connect(resolve_stores())"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 200_000 for path in stores_in.glob(".mlflow.db-*/*.db")):
        assert process.poll() is None, "it was made before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (stores_in / "mlflow.db").exists()
    (half,) = stores_in.glob(".mlflow.db-*/mlflow.db")
    with closing(sqlite3.connect(half)) as database:
        (tables,) = database.execute("select count(*) from sqlite_master").fetchone()
    assert tables > 0

    stores = resolve_stores()
    client = connect(stores)
    location = client.get_experiment("0").artifact_location
    assert location == str(stores.base / "0")
    run = client.create_run("0")
    assert connect(stores).get_run(run.info.run_id).info.status == "RUNNING"


def test_named_experiment_is_made_beside_the_database(
    stores: Stores,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "a new one")
    experiment_id = find_experiment(client, stores)
    location = client.get_experiment(experiment_id).artifact_location
    assert location == str(stores.base / experiment_id)
    assert find_experiment(client, stores) == experiment_id
    client.delete_experiment(experiment_id)
    with pytest.raises(TrackingError, match="was deleted"):
        find_experiment(client, stores)


def test_artifacts_follow_the_database_not_the_current_folder(tmp_path: Path) -> None:
    caller, project = tmp_path / "caller", tmp_path / "project"
    caller.mkdir()
    project.mkdir()
    uri = f"sqlite:///{caller}/mlflow.db"
    answer = run_elsewhere(project, MLFLOW_TRACKING_URI=uri)
    model = caller / "mlruns" / "0" / str(answer["child"]) / "artifacts" / "model"
    assert (model / "weights.safetensors").read_bytes() == b"weights"
    assert list(project.iterdir()) == []
    assert answer["heavy"] == []
    assert answer["experiment"] == "0"
    assert answer["optuna"] == f"sqlite:///{project}/mine.db"


@pytest.mark.slow
def test_mlflow_run_gives_the_parent(tmp_path: Path) -> None:
    caller, project = tmp_path / "caller", tmp_path / "project"
    caller.mkdir()
    project.mkdir()
    (project / "script.py").write_text(SCRIPT)
    (project / "MLproject").write_text(
        "name: small\nentry_points:\n  main:\n    parameters:\n"
        "      n_trials: {type: string, default: ''}\n"
        f"    command: {sys.executable} script.py > answer.json\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "run", str(project), "--env-manager", "local"],
        cwd=caller,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads((project / "answer.json").read_text().splitlines()[-1])
    assert answer["left"] is False
    assert sorted(path.name for path in project.iterdir()) == [
        "MLproject",
        "answer.json",
        "script.py",
    ]
    client = MlflowClient(tracking_uri=f"sqlite:///{caller}/mlflow.db")
    runs = {run.info.run_id: run for run in client.search_runs(["0"])}
    assert set(runs) == {answer["parent"], answer["child"]}
    parent = runs[answer["parent"]]
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"n_trials": "''", "cfg.n_trials": "1"}
    assert parent.data.tags["mlflow.source.type"] == "PROJECT"
    assert (caller / "mlruns" / "0" / answer["child"] / "artifacts" / "model").is_dir()
    assert answer["optuna"] == f"sqlite:///{caller}/mine.db"
