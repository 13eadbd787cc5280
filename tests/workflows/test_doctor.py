"""What an examination finds, and that a remedy touches nothing that lives."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from databases import put_database
from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT

from qm9flow.config import StudyConfig, to_dict
from qm9flow.tracking.places import study_place, training_place
from qm9flow.tracking.runs import TAG_HOME
from qm9flow.tracking.stores import Stores, connect, resolve_stores, sqlite_path
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded
from qm9flow.tuning.books import Books
from qm9flow.tuning.history import History
from qm9flow.tuning.locks import STALE_SECONDS, FileLock, this_process
from qm9flow.tuning.records import ATTRIBUTE_OUTCOME, NOTE_LEASE, NOTE_PARENT, show_study
from qm9flow.tuning.study import open_study
from qm9flow.workflows.doctor import examine as examine_module
from qm9flow.workflows.doctor import installation, stale
from qm9flow.workflows.doctor import stores as stores_module
from qm9flow.workflows.doctor.findings import Finding

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stores(stores_in: Path) -> Stores:
    """Stores in the current folder."""
    put_database(stores_in)
    return resolve_stores()


def begin_study(stores: Stores) -> None:
    """A study with a trial in work and one that has ended, of which Optuna is not told."""
    config = StudyConfig(n_trials=4, device="cpu")
    with open_study(stores, "demo", config, "data") as study:
        tracker = StudyTracker.open(stores, "demo", to_dict(config))
        study.history.note(NOTE_PARENT, tracker.parent_run_id)
        books = Books(study, tracker)
        for _ in range(2):
            books.take(books.begin(), EpochEnded(1, {"val/score": 0.5}, None, True))
        outcome = {"state": "pruned", "score": 0.5, "reason": "halving"}
        study.history.annotate(1, ATTRIBUTE_OUTCOME, outcome)
        signal.pause()


@contextlib.contextmanager
def study_process(stores: Stores) -> Iterator[None]:
    """A process in which such a study is in work; killed with the block."""
    child = os.fork()
    if child == 0:
        try:
            begin_study(stores)
        finally:
            os._exit(1)
    try:
        for _ in range(600):
            time.sleep(0.1)
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                raise AssertionError("the study ended by itself")
            if "pruned" in _outcomes(stores):
                break
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _outcomes(stores: Stores) -> str:
    """What Optuna knows of trials' ends; read without a connection that would stay open."""
    path = sqlite_path(stores.optuna_url)
    assert path is not None
    if not path.exists():
        return ""
    with contextlib.closing(sqlite3.connect(path)) as database:
        try:
            found = database.execute("SELECT value_json FROM trial_user_attributes").fetchall()
        except sqlite3.OperationalError:
            return ""  # it is just being made
    return str(found)


@pytest.fixture
def killed(stores: Stores) -> Stores:
    """Stores in which a study was killed."""
    with study_process(stores):
        pass
    return stores


@pytest.fixture
def living(stores: Stores) -> Iterator[Stores]:
    """Stores in which a study is in work."""
    with study_process(stores):
        yield stores


def statuses(stores: Stores) -> dict[str, str]:
    """Of all runs, by name."""
    runs = connect(stores).search_runs(["0"], max_results=1000)
    return {str(run.info.run_name): run.info.status for run in runs}


def states(stores: Stores) -> list[str]:
    return [trial.state for trial in show_study(stores, "demo").trials]


def found_in(stores: Stores) -> list[Finding]:
    return list(stale.examine(stores))


def test_a_killed_study_is_put_to_rest_and_goes_on(killed: Stores) -> None:
    before = statuses(killed)
    (finding,) = found_in(killed)
    assert finding.state == "bad"
    assert "study demo was killed: 3 runs RUNNING, 1 trial ended but not told, 1 trial begun" in (
        finding.text
    )
    assert "qm9flow study resume demo" in finding.text
    assert statuses(killed) == before, "looking changed something"
    assert finding.remedy is not None
    assert finding.remedy.apply() == (
        "ended the runs of study demo, told 1 trial, 1 trial begun; it can be gone on with"
    )
    assert statuses(killed) == {
        "demo": "KILLED",
        "trial-00000": "KILLED",
        "trial-00001": "FINISHED",
    }
    assert states(killed) == ["running", "pruned"]
    client = connect(killed)
    runs = {run.info.run_name: run for run in client.search_runs(["0"])}
    assert runs["trial-00000"].data.metrics["val/score"] == 0.5, "an epoch on disk was lost"
    assert runs["trial-00000"].data.tags["state"] == "interrupted"
    (finding,) = found_in(killed)
    assert (finding.state, finding.remedy) == ("note", None)
    assert "study demo was stopped, 1 trial begun" in finding.text


def test_a_study_in_work_is_left_alone(living: Stores) -> None:
    before = statuses(living)
    (finding,) = found_in(living)
    assert (finding.state, finding.remedy) == ("good", None)
    assert "in work, by process" in finding.text
    assert statuses(living) == before


def test_a_study_in_work_on_another_machine_is_left_alone(killed: Stores) -> None:
    """Its machine is known by the note that beats in the study; here is no lock of it."""
    history = History.open(killed.optuna_url, "demo")
    there = {**asdict(this_process()), "host": "elsewhere", "pid": 1}
    history.note(NOTE_LEASE, there)
    (study_place(killed, "demo").state / "lease").unlink()
    (finding,) = found_in(killed)
    assert (finding.state, finding.remedy) == ("good", None)
    assert "by process 1 on elsewhere" in finding.text
    history.note(NOTE_LEASE, {**there, "beat": time.time() - STALE_SECONDS - 1})
    (finding,) = found_in(killed)
    assert finding.state == "bad"


def test_a_study_that_is_started_meanwhile_is_left_alone(killed: Stores) -> None:
    (finding,) = found_in(killed)
    assert finding.remedy is not None
    config = StudyConfig(n_trials=4, device="cpu")
    with open_study(killed, "demo", config, "data"):
        before = statuses(killed)
        with pytest.raises(Exception, match="is being run by process"):
            finding.remedy.apply()
        assert statuses(killed) == before


def test_a_study_of_another_storage_is_named(killed: Stores) -> None:
    other = resolve_stores(f"sqlite:///{killed.base}/other.db")
    (finding,) = found_in(other)
    assert (finding.state, finding.remedy) == ("note", None)
    assert "study demo of another Optuna storage: 3 runs RUNNING" in finding.text
    assert not (killed.base / "other.db").exists()


def test_runs_of_a_study_that_is_gone_are_ended(killed: Stores) -> None:
    (killed.base / "optuna.db").unlink()
    (finding,) = found_in(killed)
    assert finding.remedy is not None
    assert "3 runs of study demo, which is gone" in finding.remedy.apply()
    assert set(statuses(killed).values()) == {"KILLED"}


def open_training(stores: Stores) -> StudyTracker:
    """A training's run that its process never ended."""
    return StudyTracker.open(stores, "one", {"seed": 1}, kind="training")


def leave_lock(stores: Stores, **changes: object) -> Path:
    """A training's lock as a process leaves it that was killed."""
    state = training_place(stores, "one").state
    with FileLock("training 'one'", state / "lock") as lock:
        content = {**asdict(lock.me), "born": "1", **changes}
    (state / "lock").write_text(json.dumps(content))
    return state / "lock"


def test_a_killed_training_is_put_to_rest(stores: Stores) -> None:
    open_training(stores)
    leave_lock(stores)
    (finding,) = found_in(stores)
    assert finding.state == "bad"
    assert "training one was killed: 1 run RUNNING; to go on: the same command" in finding.text
    assert finding.remedy is not None
    assert finding.remedy.apply() == "ended 1 run of training one"
    assert statuses(stores) == {"one": "KILLED"}
    assert found_in(stores)[0].text == "no run was left RUNNING"


def test_a_training_in_work_is_left_alone(stores: Stores) -> None:
    with FileLock("training 'one'", training_place(stores, "one").state / "lock"):
        open_training(stores)
        (finding,) = found_in(stores)
    assert (finding.state, finding.remedy) == ("good", None)


def test_a_training_of_another_machine_or_folder_is_left_alone(stores: Stores) -> None:
    """A lock file says nothing about processes of other machines."""
    open_training(stores)
    (finding,) = found_in(stores)
    assert (finding.state, finding.remedy) == ("note", None)
    leave_lock(stores, host="elsewhere")
    (finding,) = found_in(stores)
    assert (finding.state, finding.remedy) == ("note", None)
    assert "by process" in finding.text
    assert "on elsewhere" in finding.text


def test_a_server_s_training_of_another_folder_is_left_alone(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs come from many folders, each with locks of its own."""
    tracker = open_training(stores)
    leave_lock(stores)
    monkeypatch.setattr(stale, "is_server", lambda uri: True)
    assert found_in(stores)[0].state == "bad"
    connect(stores).set_tag(tracker.parent_run_id, TAG_HOME, "elsewhere:/home/me/mlruns/state")
    (finding,) = found_in(stores)
    assert (finding.state, finding.remedy) == ("note", None)
    assert "begun in elsewhere:/home/me/mlruns/state" in finding.text


def project_run(stores: Stores, entry_point: str, hours: float, names: set[str]) -> str:
    """A run as `mlflow run` makes it before it makes the environment."""
    client = MlflowClient(stores.tracking_uri)
    started = int(1000 * (time.time() - 3600 * hours))
    tags = {MLFLOW_PROJECT_ENTRY_POINT: entry_point, "mlflow.source.type": "PROJECT"}
    run = client.create_run("0", start_time=started, tags=tags)
    for name in names:
        client.log_param(run.info.run_id, name, "''")
    return str(run.info.run_id)


def test_projects_that_never_began_are_ended_and_others_are_not(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = project_run(stores, "main", 2.0, stale.ENTRY_POINTS["main"])
    others = [
        project_run(stores, "main", 2.0, {"alpha", "n_trials"}),  # another project
        project_run(stores, "main", 0.5, stale.ENTRY_POINTS["main"]),  # perhaps it still begins
        str(MlflowClient(stores.tracking_uri).create_run("0", start_time=1).info.run_id),
    ]
    taken_up = project_run(stores, "evaluate", 2.0, stale.ENTRY_POINTS["evaluate"])
    environment = {**os.environ, "MLFLOW_RUN_ID": taken_up}
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        (finding,) = found_in(stores)
        process.kill()
    assert "1 run of `mlflow run` never began" in finding.text
    assert finding.remedy is not None
    finding.remedy.apply()
    client = connect(stores)
    assert client.get_run(ours).info.status == "KILLED"
    assert {client.get_run(run).info.status for run in [*others, taken_up]} == {"RUNNING"}


def test_entry_points_are_those_of_the_project() -> None:
    import yaml

    project = yaml.safe_load((ROOT / "MLproject").read_text())
    for name, parameters in stale.ENTRY_POINTS.items():
        assert parameters <= project["entry_points"][name]["parameters"].keys()


def areas(found: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.area: finding for finding in found}


def test_no_stores_at_all(stores_in: Path) -> None:
    found = examine_module.examine(None, lambda finding: None)
    assert not [finding for finding in found if finding.state == "bad"]
    assert "nothing is recorded yet" in areas(iter(found))["tracking"].text
    assert list(stores_in.iterdir()) == []


def test_stores_in_order(killed: Stores) -> None:
    found = areas(stores_module.examine(killed))
    assert {area: finding.state for area, finding in found.items() if area != "disk"} == {
        "data": "good",
        "tracking": "good",
        "artifacts": "good",
        "registry": "note",
        "studies": "good",
    }
    assert "1 study in" in found["studies"].text


@pytest.mark.parametrize("name", ["mlflow.db", "mlruns/optuna.db"])
@pytest.mark.parametrize("damage", ["noise", "cut", "hole"])
def test_damaged_databases(killed: Stores, stores_in: Path, name: str, damage: str) -> None:
    path = stores_in / name
    content = path.read_bytes()
    changed = {
        "noise": os.urandom(50_000),
        "cut": content[: len(content) // 3],
        "hole": content[:8192] + bytes(len(content) - 8192),
    }
    path.write_bytes(changed[damage])
    found = examine_module.examine(None, lambda finding: None)
    (bad,) = [finding for finding in found if finding.state == "bad"]
    assert bad.area in ("tracking", "studies", "registry", "artifacts")
    assert str(path) in bad.text
    assert "\n" not in bad.text


def test_a_database_of_another_version(stores: Stores, stores_in: Path) -> None:
    with sqlite3.connect(stores_in / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'deadbeef'")
    found = areas(stores_module.examine(stores))
    assert found["tracking"].state == "bad"
    assert "mlflow db upgrade" in found["tracking"].text


@pytest.mark.parametrize("is_mute", [False, True])
def test_servers_that_do_not_answer(
    stores_in: Path, monkeypatch: pytest.MonkeyPatch, is_mute: bool
) -> None:
    from qm9flow.registry import client
    from qm9flow.tuning import history

    monkeypatch.setattr(client, "PROBE_S", 1.0)
    monkeypatch.setattr(history, "KNOCK_SECONDS", 2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_mute:
            server.listen()  # takes a connection, and says nothing
        port = server.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{port}")
        began = time.monotonic()
        pytest.importorskip("psycopg")
        url = f"postgresql+psycopg://me:secret@127.0.0.1:{port}/studies"
        found = examine_module.examine(url, lambda finding: None)
        assert time.monotonic() - began < 60
    bad = [finding for finding in found if finding.state == "bad"]
    assert [finding.area for finding in bad] == ["tracking", "studies"]
    assert "does not answer" in bad[0].text
    assert "cannot open the study storage postgresql+psycopg://me:***@127" in bad[1].text
    assert "secret" not in str(found)


def test_low_and_full_disks(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_module, "LOW_BYTES", 1e18)
    found = [item for item in stores_module.examine(stores) if item.area == "disk"]
    assert {finding.state for finding in found} == {"note"}
    monkeypatch.setattr(stores_module, "FULL_BYTES", 1e18)
    found = [item for item in stores_module.examine(stores) if item.area == "disk"]
    assert {finding.state for finding in found} == {"bad"}
    assert "make room" in found[0].text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(killed: Stores, stores_in: Path) -> None:
    (stores_in / "mlruns").chmod(0o555)
    try:
        found = [item for item in stores_module.examine(killed) if item.state == "bad"]
        assert "cannot be written to (Permission denied)" in found[0].text
    finally:
        (stores_in / "mlruns").chmod(0o755)


def test_a_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["click>=99", "numpy>=1", "no-such-package; extra == 'serve'"]
    monkeypatch.setattr(installation.importlib.metadata, "requires", lambda name: wanted)
    found = [item for item in installation.examine() if item.area == "versions"]
    assert [finding.state for finding in found] == ["note", "bad"]
    assert "the extra serve, for the HTTP service, is not installed" in found[0].text
    assert "click" in found[1].text
    assert "is not >=99" in found[1].text


def test_it_works_without_the_extras(killed: Stores) -> None:
    """Where models are only served, there is neither torch nor optuna."""
    code = (
        "import sys\n"
        "for name in ('torch', 'optuna', 'ray', 'pyarrow', 'qm9pack', 'safetensors', 'matplotlib',"
        " 'tensorboard', 'onnx'):\n"
        "    sys.modules[name] = None\n"
        "from qm9flow.cli.main import main\n"
        "sys.argv = ['qm9flow', 'doctor']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "no optuna to read them" in done.stdout
    assert "torch is not installed" in done.stdout
