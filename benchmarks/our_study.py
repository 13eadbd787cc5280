"""A study of ours as the benchmarks run it: the search alone, in stores of its own.

Shared by `study.py` and `study_overhead.py`; nothing runs from here.
"""

import cProfile
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from qm9flow.config import StudyConfig, to_dict
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.coordinator import Coordinator, Progress, StudyResult
from qm9flow.tuning.executors import Answer, Executor, Job
from qm9flow.tuning.history import find_study, open_storage
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.spaces import Params, Space
from qm9flow.tuning.study import OpenStudy, open_study


def start_alone() -> None:
    """Leave alone the stores that the environment names, and say nothing about new ones."""
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        os.environ.pop(f"MLFLOW_{name}", None)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)


def stores_at(folder: Path) -> Stores:
    """Stores in a folder, as `mlflow run` from there would have them."""
    base = folder.resolve() / "mlruns"
    return Stores(
        tracking_uri=f"sqlite:///{folder.resolve()}/mlflow.db",
        optuna_url=f"sqlite:///{base}/optuna.db",
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )


def enqueue(stores: Stores, name: str, points: Sequence[Mapping[str, Any]]) -> None:
    """Have a study try these points first, by Optuna's own means."""
    storage = open_storage(stores.optuna_url)
    if find_study(storage, name) is None:
        optuna.create_study(storage=storage, study_name=name, direction="minimize")
    study = optuna.load_study(study_name=name, storage=storage)
    for point in points:
        study.enqueue_trial(dict(point))


class Watched(Executor):
    """An executor, and when what happened to it.

    Attributes:
        ready_at: When the first slot could take a trial, in seconds of `time.monotonic`; None
            before.
        ended_at: When it was shut down.
        cpu_seconds: CPU time of this process between the two.
        waited: Seconds inside `collect`.
    """

    def __init__(self, inner: Executor) -> None:
        """Pass everything on."""
        self.inner = inner
        self.ready_at: float | None = None
        self.ended_at: float | None = None
        self.cpu_seconds = 0.0
        self.waited = 0.0

    @property
    def seconds(self) -> float:
        """Between the two; 0 where no slot was ever ready."""
        if self.ready_at is None or self.ended_at is None:
            return 0.0
        return self.ended_at - self.ready_at

    def idle(self) -> tuple[int, ...]:
        """Slots without a trial."""
        slots = self.inner.idle()
        if slots and self.ready_at is None:
            self.ready_at = time.monotonic()
            self.cpu_seconds = -time.process_time()
        return slots

    def start(self, slot: int, job: Job) -> None:
        """Put a job into a slot."""
        self.inner.start(slot, job)

    def advance(self, slot: int) -> None:
        """Ask for an epoch."""
        self.inner.advance(slot)

    def collect(self) -> list[Answer]:
        """Wait for answers."""
        began = time.monotonic()
        answers = self.inner.collect()
        if self.ready_at is not None:
            self.waited += time.monotonic() - began
        return answers

    def close(self, slot: int, number: int) -> None:
        """Take a trial out of a slot."""
        self.inner.close(slot, number)

    def shut_down(self) -> None:
        """End it."""
        self.ended_at = time.monotonic()
        if self.ready_at is not None:
            self.cpu_seconds += time.process_time()
        self.inner.shut_down()


@dataclass(frozen=True)
class Ran:
    """What a start of a study came to.

    Attributes:
        result: All trials.
        seconds: From the first slot that was ready to the last trial told.
        cpu_seconds: Of the coordinator's process with its threads, likewise.
        tracking_seconds: Of these, in MLflow and TensorBoard.
        waited: Of these, for answers of workers.
        ended: When each trial ended, in seconds since 1970, by number.
    """

    result: StudyResult
    seconds: float
    cpu_seconds: float
    tracking_seconds: float
    waited: float
    ended: dict[int, float]


def run_study(
    stores: Stores,
    name: str,
    config: StudyConfig,
    dataset: Dataset,
    make_executor: Callable[[], Executor],
    *,
    space: Space | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress = lambda what, done, total: None,
    profile: cProfile.Profile | None = None,
) -> Ran:
    """Search, as `qm9flow study run` does before it trains the candidate.

    Args:
        stores: Where everything is kept.
        name: Of the study.
        config: Its options.
        dataset: All molecules.
        make_executor: Gives who trains.
        space: What is searched; none means the preset's.
        stop: Whether to end.
        progress: Told how many trials have ended.
        profile: Takes down where the coordinator's time goes.

    Returns:
        What it came to.
    """
    with open_study(stores, name, config, dataset.digest, space) as study:
        tracker = StudyTracker.open(
            stores, name, to_dict(config), previous_parent=study.previous_parent
        )
        split = make_split(config.split, len(dataset))
        tracker.log_dataset(
            digest=dataset.digest,
            molecules=len(dataset),
            split=split.name,
            split_digest=split.digest,
        )
        before = tracker.seconds_spent
        executor = Watched(make_executor())
        coordinator = Coordinator(study, tracker, executor, stop=stop, progress=progress)
        with profile or nullcontext():
            result = coordinator.run()
        if tracker.errors:
            raise SystemExit(f"{tracker.errors} calls to the stores failed")
        spent = tracker.seconds_spent - before
        tracker.finish("FINISHED")
        return Ran(
            result=result,
            seconds=executor.seconds,
            cpu_seconds=executor.cpu_seconds,
            tracking_seconds=spent,
            waited=executor.waited,
            ended=_ends(study),
        )


def _ends(study: OpenStudy) -> dict[int, float]:
    return {
        trial.number: trial.datetime_complete.timestamp()
        for trial in study.history.trials
        if trial.datetime_complete is not None
    }


def draw(space: Space, config: StudyConfig, count: int) -> list[Params]:
    """The first points that a study's sampler draws; for samplers that do not learn."""
    sampler = make_sampler(config.sampler, space, config.seed)
    study = optuna.create_study()
    return [sampler.propose(study.ask()) for _ in range(count)]
