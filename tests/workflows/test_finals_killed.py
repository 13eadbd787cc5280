"""Finals with workers of their own, killed with `kill -9`: they go on; all accounts are right."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NAME = "demo"
BEGIN = [
    *("study", "run", "--study-name", NAME, "--n-trials", "3", "--n-jobs", "2"),
    *("--train-size", "128", "--val-size", "64", "--max-epochs", "1"),
    *("--finalists", "3", "--final-minutes", "0.9", "--seed-pretrained", "false"),
]
KILLS = 4
WORKER = "ray::"


def start(folder: Path) -> "subprocess.Popen[bytes]":
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "qm9flow", *BEGIN],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def children(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    below, found = {pid}, []
    while True:
        new = [child for child, parent in pairs if parent in below and child not in below]
        if not new:
            return found
        below |= set(new)
        found += new


def workers(pid: int) -> list[int]:
    """Ray's processes that train."""
    found = []
    for child in children(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            continue
        if command.startswith(WORKER) and "IDLE" not in command:
            found.append(child)
    return found


def wait_for_finals(process: "subprocess.Popen[bytes]", log: Path, before: int) -> None:
    """Until the process, not an earlier one, says that it holds finals, or ends."""
    while process.poll() is None:
        if log.exists() and log.read_text().count("finals: ") > before:
            return
        time.sleep(0.2)


def check(folder: Path) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [item.experiment_id for item in client.search_experiments()]
    runs = list(client.search_runs(experiments))
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    state = folder / "mlruns" / "state" / NAME / "finals"
    results = {
        path.parent.name: json.loads(path.read_text()) for path in state.glob("*/final.json")
    }
    assert sorted(item["minutes"] for item in results.values()) == [0.06] * 3 + [0.18] * 2
    finals: dict[str, list[Run]] = {}
    for run in runs:
        if run.data.tags["kind"] == "final":
            finals.setdefault(run.info.run_name.removeprefix("final-"), []).append(run)
    assert finals.keys() == results.keys()
    for name, (run, *others) in finals.items():
        assert not others, f"{name} has several runs"
        assert run.info.status == "FINISHED"
        assert run.data.metrics["best/val/score"] == results[name]["score"]
        history = client.get_metric_history(run.info.run_id, "val/score")
        assert [point.step for point in history] == list(range(1, results[name]["epochs"] + 1))
    assert not [path for path in state.glob("**/*") if path.suffix in (".part", ".safetensors")]
    assert len(client.search_model_versions("name='qm9flow'")) == 1


def test_finals_killed_at_random_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    chance = random.Random(5)
    log = tmp_path / "mlruns" / "state" / NAME / "study.log"
    struck = []
    for turn in range(KILLS):
        before = log.read_text().count("finals: ") if log.exists() else 0
        process = start(tmp_path)
        wait_for_finals(process, log, before)
        time.sleep(chance.uniform(1.0, 12.0))
        targets = workers(process.pid)
        if turn % 2 and targets:  # a worker first: it is trained again by the same process
            os.kill(chance.choice(targets), signal.SIGKILL)
            struck.append("worker")
            time.sleep(chance.uniform(0.5, 8.0))
        if process.poll() is None:
            process.kill()
            struck.append("coordinator")
        process.wait()
    process = start(tmp_path)
    assert process.wait(600) == 0, (tmp_path / "out.txt").read_text()[-3000:]
    assert struck.count("coordinator") >= 2, struck
    check(tmp_path)
