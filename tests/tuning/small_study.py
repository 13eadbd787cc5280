"""A study small enough to be run, killed and run again in a test: real data, stores, trainings.

As a script it is set under fire. `small_study.py FOLDER coordinator KILLS SEED SLOTS` starts a
study, kills the process (-9) at a random instant or in the middle of a random write, and starts it
again, so many times; then it lets it end. `small_study.py FOLDER workers KILLS SEED` kills a worker
every few seconds instead.
"""

import dataclasses
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(name, None)

from mlflow import MlflowClient  # noqa: E402
from optuna.storages import RDBStorage  # noqa: E402

from qm9flow.config import MPNNConfig, StudyConfig, TrainConfig, to_dict  # noqa: E402
from qm9flow.data.store import Dataset, open_dataset  # noqa: E402
from qm9flow.tracking.stores import Stores, connect  # noqa: E402
from qm9flow.tracking.study import StudyTracker  # noqa: E402
from qm9flow.tuning import books  # noqa: E402
from qm9flow.tuning.checkpoints import CheckpointFolder  # noqa: E402
from qm9flow.tuning.coordinator import Coordinator, StudyResult  # noqa: E402
from qm9flow.tuning.executors import Executor, InProcessExecutor, Placement  # noqa: E402
from qm9flow.tuning.ranges import FloatRange, IntRange  # noqa: E402
from qm9flow.tuning.spaces import Space  # noqa: E402
from qm9flow.tuning.study import open_study  # noqa: E402

TINY = Space(
    name="tiny",
    parameters={
        "conv_layers": IntRange(1, 2),
        "hidden": IntRange(2, 8, log=True),
        "learning_rate": FloatRange(1e-4, 1e-1, log=True),
    },
    recipe=TrainConfig(
        model=MPNNConfig(fc_layers=1, edge_width=4, radial=4), batch_size=16, threads=1
    ),
    first={"conv_layers": 1, "hidden": 4, "learning_rate": 1e-2},
)


def small_config(**options: Any) -> StudyConfig:
    """Options of a study of seconds."""
    values = {"n_trials": 4, "train_size": 64, "val_size": 32, "max_epochs": 3, "device": "cpu"}
    return StudyConfig(**(values | options))


def stores_at(folder: Path) -> Stores:
    """Stores in a folder, as `mlflow run` from there would have them."""
    base = folder / "mlruns"
    return Stores(
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        optuna_url=f"sqlite:///{base}/optuna.db",
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )


def make_template(folder: Path) -> Path:
    """An empty MLflow database: making one takes seconds, copying it does not."""
    connect(stores_at(folder))
    return folder / "mlflow.db"


def run_study(
    stores: Stores,
    dataset: Dataset,
    config: StudyConfig,
    *,
    name: str = "demo",
    space: Space = TINY,
    executor: Executor | None = None,
    **options: Any,
) -> StudyResult:
    """Start a study, or start it again."""
    with open_study(stores, name, config, dataset.digest, space) as study:
        tracker = StudyTracker.open(
            stores, name, to_dict(config), previous_parent=study.previous_parent
        )
        worker = executor or InProcessExecutor(dataset)
        options = {"checkpoint_seconds": 0.0, **options}  # epochs here take less than a second
        result = Coordinator(study, tracker, worker, **options).run()
        ended = result.ending in ("complete", "exhausted")
        tracker.finish("FINISHED" if ended else "KILLED")
        return result


def _die_at_write(count: int) -> None:
    """Kill this process before or after its `count`-th write to any store."""
    left = [count]

    def armed(owner: Any, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def write(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            is_last = left[0] == 0  # kept: a write may hold another one
            if is_last and count % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = inner(*args, **kwargs)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(owner, name, write)

    for name in ("create_run", "log_batch", "log_artifacts", "set_terminated", "update_run"):
        armed(MlflowClient, name)
    for name in (
        "create_new_trial",
        "set_trial_user_attr",
        "set_trial_intermediate_value",
        "set_trial_state_values",
    ):
        armed(RDBStorage, name)
    armed(CheckpointFolder, "save")
    armed(CheckpointFolder, "save_tally")
    armed(CheckpointFolder, "delete")


def _die_after(seconds: float) -> None:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _executor(dataset: Dataset, slots: int) -> Executor:
    if slots == 1:
        return InProcessExecutor(dataset)
    from qm9flow.tuning.remote import RayExecutor

    return RayExecutor(dataset, Placement(slots))


def _start(folder: Path, config: StudyConfig, slots: int, arm: Callable[[], None]) -> bool:
    """Run the study in a child; whether it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            dataset = open_dataset()
            executor = _executor(dataset, slots)
            arm()
            run_study(stores_at(folder), dataset, config, executor=executor)
            code = 0
        finally:  # a child must not go on with what its parent does
            if code:
                traceback.print_exc()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit("a start failed by itself")
    return os.WIFEXITED(status)


def kill_coordinators(folder: Path, kills: int, seed: int, slots: int) -> None:
    """Set a study under fire; print how often it was hit."""
    # Half of the kills fall before an epoch: without this a trial would count as deadly in itself.
    books.MAX_FRUITLESS_STARTS = kills + 1
    chance = random.Random(seed)
    config = small_config(n_trials=5)
    shutil.copy(make_template_in_child(folder), folder / "mlflow.db")
    hits = 0
    began = time.monotonic()
    for _ in range(kills):
        if chance.random() < 0.7:
            count = chance.randint(1, 24)
            has_ended = _start(folder, config, slots, lambda count=count: _die_at_write(count))
        else:
            seconds = chance.uniform(0.02, 0.8)
            has_ended = _start(folder, config, slots, lambda seconds=seconds: _die_after(seconds))
        if has_ended:
            break
        hits += 1
    while not _start(folder, config, slots, lambda: None):
        pass
    print(f"{hits} hits in {time.monotonic() - began:.1f} s")


def _workers() -> list[int]:
    """Processes of Ray's workers that stand ready or train."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue  # it has just ended
        if line.startswith(b"ray::Worker"):
            found.append(int(path.parent.name))
    return found


def kill_workers(folder: Path, kills: int, seed: int) -> None:
    """Run a study whose workers are killed every few seconds; print how many were."""
    chance = random.Random(seed)
    hits: list[int] = []
    ended = threading.Event()

    def fire() -> None:
        while len(hits) < kills and not ended.wait(chance.uniform(1.0, 3.0)):
            workers = _workers()
            if workers:
                hits.append(chance.choice(workers))
                os.kill(hits[-1], signal.SIGKILL)

    shutil.copy(make_template_in_child(folder), folder / "mlflow.db")
    dataset = open_dataset()
    config = small_config(n_trials=8, train_size=2000, max_epochs=4)
    began = time.monotonic()
    gun = threading.Thread(target=fire)
    gun.start()
    run_study(stores_at(folder), dataset, config, executor=_executor(dataset, 2))
    ended.set()
    gun.join()
    print(f"{len(hits)} hits in {time.monotonic() - began:.1f} s")


def make_template_in_child(folder: Path) -> Path:
    """As `make_template`, leaving no connection behind that a fork would share."""
    (folder / "template").mkdir()
    if os.fork() == 0:
        make_template(folder / "template")
        os._exit(0)
    os.wait()
    return folder / "template" / "mlflow.db"


def with_recipe(space: Space, **changes: Any) -> Space:
    """A space with another recipe."""
    return dataclasses.replace(space, recipe=dataclasses.replace(space.recipe, **changes))


if __name__ == "__main__":
    what = {"coordinator": kill_coordinators, "workers": kill_workers}[sys.argv[2]]
    what(Path(sys.argv[1]), *map(int, sys.argv[3:]))
