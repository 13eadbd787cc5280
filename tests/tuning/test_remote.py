"""Slots in processes of their own: the same numbers, and workers and machines that die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import check_ended, comparable
from small_study import run_study, small_config, stores_at

from qm9flow.config import StudyConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import ConfigError, DataError, StudyError
from qm9flow.tracking.stores import Stores, connect
from qm9flow.tuning.executors import Answer, Placement
from qm9flow.tuning.placing import place
from qm9flow.tuning.records import show_study

ray = pytest.importorskip("ray")
from qm9flow.tuning.remote import MAX_FAILED_STARTS, RayExecutor  # noqa: E402
from qm9flow.tuning.worker import Worker  # noqa: E402

SCRIPT = Path(__file__).with_name("small_study.py")
EVEN = {"sampler": "random", "max_epochs": 2}
"""No trial depends on what became of another: no rungs, and nothing is learned from scores."""


class Deadly(RayExecutor):
    """Its workers are killed in the middle of an epoch."""

    def __init__(self, dataset: Dataset, kills: int) -> None:
        super().__init__(dataset, Placement(2))
        self.kills = kills
        self.started: list[int] = []

    def start(self, slot, job):
        self.started += [item.number for item in job.trials]
        super().start(slot, job)

    def advance(self, slot: int) -> None:
        # Asked before the epoch, as an actor answers in order.
        actor = self._slots[slot].actor
        pid = ray.get(actor.__ray_call__.remote(lambda worker: os.getpid()))
        super().advance(slot)
        if self.kills:
            self.kills -= 1
            os.kill(pid, signal.SIGKILL)


def processes(pattern: str) -> list[str]:
    """Command lines of this machine's processes that contain a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has just ended
        if pattern in line:
            found.append(line)
    return found


def wait_until_gone(pattern: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while left := processes(pattern):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.slow
def test_the_numbers_of_this_process(stores: Stores, dataset: Dataset, tmp_path: Path) -> None:
    config = small_config(n_trials=4, **EVEN)
    result = run_study(stores, dataset, config, executor=RayExecutor(dataset, Placement(2)))
    assert result.ending == "complete"
    trials = check_ended(stores, 4)
    wait_until_gone("ray::")
    wait_until_gone("raylet")
    alone = run_study(stores, dataset, config, name="alone")
    assert comparable(trials) == comparable(alone.trials)


@pytest.mark.slow
def test_a_trial_whose_worker_dies_is_trained_again(stores: Stores, dataset: Dataset) -> None:
    config = small_config(n_trials=3, **EVEN)
    worker = Deadly(dataset, kills=2)
    run_study(stores, dataset, config, executor=worker)
    trials = check_ended(stores, 3)
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert len(worker.started) == 5  # three trials, and two that began again
    alone = run_study(stores, dataset, config, name="alone")
    assert comparable(trials) == comparable(alone.trials)


def beginning(folder: Path, starts: int, begin: Callable[[], None]) -> type[Worker]:
    """Workers whose first starts, counted in a folder, begin with something else.

    Local, as `begin` must be: Ray's processes do not find this module.
    """

    class Beginning(Worker):
        def __init__(self, *arguments: Any) -> None:
            started = len(list(folder.iterdir()))
            (folder / str(os.getpid())).touch()
            if started < starts:
                begin()
            super().__init__(*arguments)

    return Beginning


def wait_for_worker(executor: RayExecutor) -> None:
    """Until one is ready; then it is over."""
    try:
        while not executor.idle():
            assert executor.collect() == []
    finally:
        executor.shut_down()


@pytest.mark.slow
def test_workers_killed_while_they_start_are_replaced(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    killed = beginning(tmp_path, MAX_FAILED_STARTS + 1, be_killed)
    monkeypatch.setattr("qm9flow.tuning.remote.Worker", killed)
    executor = RayExecutor(dataset, Placement(1))
    wait_for_worker(executor)
    assert len(list(tmp_path.iterdir())) == MAX_FAILED_STARTS + 2


@pytest.mark.slow
def test_workers_that_give_up_end_the_study_and_say_why(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up() -> None:
        raise DataError("the data set is gone")

    monkeypatch.setattr("qm9flow.tuning.remote.Worker", beginning(tmp_path, 100, give_up))
    executor = RayExecutor(dataset, Placement(1))
    with pytest.raises(StudyError, match=r"3 workers in a row .*: .*the data set is gone"):
        wait_for_worker(executor)


@pytest.mark.slow
def test_a_trial_that_takes_every_worker_along_fails_in_the_end(
    stores: Stores, dataset: Dataset
) -> None:
    worker = Deadly(dataset, kills=3)
    run_study(stores, dataset, small_config(n_trials=1, **EVEN), executor=worker)
    (trial,) = check_ended(stores, 1)
    assert (trial.state, trial.reason) == ("failed", "crash")
    assert "worker is lost" in str(trial.message)
    assert worker.started == [0, 0, 0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ray_address": "127.0.0.1:1"}, StudyError, r"cannot use Ray at 127\.0\.0\.1:1"),
        ({"ray_address": "ray://there:1"}, StudyError, "with ray_address auto"),
        ({"ray_address": "nonsense"}, ConfigError, "name:port"),
        ({"n_jobs": 100_000, "n_trials": 200_000}, ConfigError, "at most"),
        ({"n_jobs": 3, "gpus_per_trial": 0.5}, ConfigError, "0 GPUs to share"),
    ],
)
def test_places_that_are_none(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        place(StudyConfig(**options))


def test_a_daemon_that_is_not_there_in_time_is_no_crash(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(**_options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", busy)
    with pytest.raises(StudyError, match="cannot use Ray here: The current node timed out"):
        RayExecutor(dataset, Placement(1))


def test_no_more_places_than_trials() -> None:
    assert place(StudyConfig(n_jobs=2, n_trials=1)) is None
    found = place(StudyConfig(n_jobs=2, n_trials=5, device="cpu"))
    assert found == Placement(2, 0.0)


class Beheaded(RayExecutor):
    """Its daemon is killed after the first answer, and its workers with it."""

    has_daemon = True

    def collect(self) -> list[Answer]:
        answers = super().collect()
        if answers and self.has_daemon:
            self.has_daemon = False
            calls = [slot.actor.__ray_call__.remote(process_id) for slot in self._slots]
            for pid in (find_daemon(), *ray.get(calls)):
                os.kill(pid, signal.SIGKILL)
        return answers


def process_id(worker: object) -> int:
    return os.getpid()


def find_daemon() -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        program, pid = path.read_bytes().partition(b"\0")[0], int(path.parent.name)
        if program.endswith(b"/raylet") and is_child(pid):
            return pid
    raise LookupError("this process has no raylet")


def is_child(pid: int) -> bool:
    return f"PPid:\t{os.getpid()}\n" in Path(f"/proc/{pid}/status").read_text()


def behead(folder: str) -> None:
    """In a process of its own, which Ray may end."""
    dataset, stores = open_dataset(), stores_at(Path(folder))
    connect(stores)
    try:
        run_study(
            stores,
            dataset,
            small_config(n_trials=3, **EVEN),
            executor=Beheaded(dataset, Placement(2)),
        )
    except StudyError as error:
        print(error)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dead_daemon_ends_the_study_with_its_records_closed(
    tmp_path: Path, dataset: Dataset
) -> None:
    code = f"import test_remote; test_remote.behead({str(tmp_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": f"{SCRIPT.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
    )
    assert "has died" in done.stdout, done.stderr[-3000:]
    stores = stores_at(tmp_path)
    runs = connect(stores).search_runs(["0"], "tags.kind = 'trial'")
    assert runs
    assert "RUNNING" not in {run.info.status for run in runs}
    run_study(stores, dataset, small_config(n_trials=3, **EVEN))
    check_ended(stores, 3)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator["ray.cluster_utils.Cluster"]:
    """Two machines as Ray sees it, whose caches are empty, and a head that trains nothing."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    empty = {"QM9FLOW_CACHE": str(tmp_path / "empty")}
    nodes = [cluster.add_node(num_cpus=1, env_vars=empty) for _ in range(2)]
    cluster.machines = nodes
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class Losing(RayExecutor):
    """Loses a machine after some answers, and gets another one later."""

    def __init__(self, dataset: Dataset, cluster: "ray.cluster_utils.Cluster") -> None:
        super().__init__(dataset, Placement(None, address=cluster.address))
        self.cluster = cluster
        self.answers = 0

    def collect(self) -> list[Answer]:
        answers = super().collect()
        before, self.answers = self.answers, self.answers + len(answers)
        if before < 3 <= self.answers:
            self.cluster.remove_node(self.cluster.machines[0], allow_graceful=False)
        if before < 8 <= self.answers:
            self.cluster.add_node(num_cpus=1)
        return answers


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_lost_machine_costs_no_trial(
    stores: Stores, dataset: Dataset, cluster: "ray.cluster_utils.Cluster"
) -> None:
    executor = Losing(dataset, cluster)
    assert executor.placement.slots == 2
    config = small_config(n_trials=6, **EVEN)
    run_study(stores, dataset, config, executor=executor)
    trials = check_ended(stores, 6)
    assert {trial.state for trial in trials} == {"complete"}
    alone = run_study(stores, dataset, config, name="alone")
    assert comparable(trials) == comparable(alone.trials)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_killed_at_random(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "workers", "8", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) >= 3, done.stdout
    study = show_study(stores_at(tmp_path), "demo")
    check_ended(stores_at(tmp_path), len(study.trials))
