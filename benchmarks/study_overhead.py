"""What a study costs beside its trainings: share of its slots' time, and trials a second.

    python benchmarks/study_overhead.py
    python benchmarks/study_overhead.py --only share --trials 40 --seconds 5
    python benchmarks/study_overhead.py --only coordinator --finished 100 1000 5000 --profile 15

Two parts, both with Optuna and MLflow on SQLite as a study has them by default:

`share`: real trials of the group's best setting, sized to take `--seconds`, on two of Ray's
workers with one thread each. Training is what a trial's epochs report (training and validation);
everything else that a worker does or waits for is overhead:

| part | what |
| --- | --- |
| set-up | in the worker: loading the trial's data, making its network, checkpoints, its weights |
| between epochs | the worker waits: its events travel, are put on record, the next epoch is asked |
| between trials | the same, and the trial is ended, the next one asked of the sampler and begun |

`share` is overhead over the slots' time, to be at most 0.05. A worker's first trial is left out: it
loads code, which takes a second. From then on a slot's time runs to its last epoch, and one more
gap for the trial that ends there. Starting Ray and its workers, and slots that stand idle because
no trial is left, are given apart: they do not grow with a study.

`coordinator`: trials a second of the coordinator alone, at studies that have so many finished
trials. Its executor trains nothing: it answers at once with the events of one real training,
recorded beforehand, their scores spread at random so that halving has its way. Sampling (TPE) is
included. The finished trials are put into Optuna beforehand; MLflow, whose calls do not depend on
how many runs there are, holds only those of the trials measured. `--from-scratch` lets the
coordinator run them all instead.

Work of others on the machine makes both worse. The last line is JSON. The defaults take about five
minutes on two cores.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

from coordinator_alone import (
    EPOCHS,
    STUDY,
    WORKERS,
    measure_coordinator,
    record,
    show_coordinator,
)
from our_study import Ran, run_study, start_alone, stores_at
from peers import machine

from qm9flow.cli.progress import progress_bar
from qm9flow.config import MPNNConfig, StudyConfig, TrainConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.tracking.stores import connect
from qm9flow.training.events import EpochEnded, Event, Failed
from qm9flow.training.fit import fit
from qm9flow.tuning import remote
from qm9flow.tuning.executors import Executor, Placement, TrialEvent
from qm9flow.tuning.ranges import FloatRange
from qm9flow.tuning.spaces import Space
from qm9flow.tuning.worker import Worker

VALIDATION = 200
"""Validation molecules of a real trial."""
LIMIT = 0.05
UNPRUNED = {"halving": "off", "gradient_stop": "observe"}
ONE_SETTING = Space(
    name="one setting",
    parameters={"learning_rate": FloatRange(5e-4, 2e-3, log=True)},
    recipe=TrainConfig(model=MPNNConfig(), batch_size=128),
)


def timed_worker(folder: Path) -> type[Worker]:
    """A worker that writes down what each epoch took, as a class that Ray can send."""

    class TimedWorker(Worker):
        def epoch(self) -> tuple[TrialEvent, ...]:
            began = time.monotonic()
            events = super().epoch()
            ended = time.monotonic()
            line = {
                "number": events[0].number,
                "began": began,
                "ended": ended,
                "training": sum(training_seconds(item.event) for item in events),
            }
            with (folder / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            return events

    return TimedWorker


def training_seconds(event: Event) -> float:
    """What an epoch took inside a training."""
    if not isinstance(event, EpochEnded):
        return 0.0
    return event.metrics["train/seconds"] + event.metrics["val/seconds"]


@dataclass
class Slot:
    """One worker's time, in seconds.

    Attributes:
        trials: That it has trained after its first one.
        training: Inside epochs.
        set_up: Beside them in the worker.
        between_epochs: Waiting inside trials.
        between_trials: Waiting from trial to trial, with a gap of average length for the last one.
        ended: When its last epoch ended, of `time.monotonic`.
        began: When its first one began, of the first trial.
    """

    trials: int
    training: float
    set_up: float
    between_epochs: float
    between_trials: float
    began: float
    ended: float

    @classmethod
    def read(cls, path: Path) -> "Slot":
        """From what a worker wrote."""
        every = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [line for line in every if line["number"] != every[0]["number"]]
        if not lines:
            raise SystemExit("a worker trained no second trial: raise --trials")
        gaps: dict[bool, list[float]] = {True: [], False: []}
        for before, after in pairwise(lines):
            gaps[before["number"] == after["number"]].append(after["began"] - before["ended"])
        training = sum(line["training"] for line in lines)
        return cls(
            trials=len(gaps[False]) + 1,
            training=training,
            set_up=sum(line["ended"] - line["began"] for line in lines) - training,
            between_epochs=sum(gaps[True]),
            between_trials=mean(gaps[False] or [0.0]) * (len(gaps[False]) + 1),
            began=every[0]["began"],
            ended=lines[-1]["ended"],
        )

    @property
    def overhead(self) -> float:
        """All but training."""
        return self.set_up + self.between_epochs + self.between_trials


def sized(dataset: Dataset, seconds: float) -> int:
    """Training molecules for trials of that length on a core of one's own.

    Two short trainings after one to warm up give the cost of a molecule and that of the rest.
    """
    costs = {}
    recipe = replace(ONE_SETTING.recipe, val_size=VALIDATION, max_epochs=2, threads=1)
    for size in (512, 512, 2048):
        began = time.process_time()
        for event in fit(replace(recipe, train_size=size), dataset):
            if isinstance(event, Failed):
                raise SystemExit(f"the training failed: {event.message}")
        costs[size] = time.process_time() - began
    per_molecule = (costs[2048] - costs[512]) / (2 * (2048 - 512))
    rest = max(0.0, costs[512] / 2 - 512 * per_molecule)
    return max(recipe.batch_size, int((seconds / EPOCHS - rest) / per_molecule))


def measure_share(options: argparse.Namespace, dataset: Dataset, folder: Path) -> dict[str, Any]:
    """Run real trials on two workers; gives where their time went."""
    stores = stores_at(folder)
    connect(stores)
    config = StudyConfig(
        n_trials=options.trials,
        train_size=sized(dataset, options.seconds),
        val_size=VALIDATION,
        max_epochs=EPOCHS,
        n_jobs=WORKERS,
        device="cpu",
        **UNPRUNED,
    )
    lines = folder / "epochs"
    lines.mkdir()
    launched: list[float] = []

    def make_executor() -> Executor:
        launched.append(time.monotonic())
        return remote.RayExecutor(dataset, Placement(WORKERS))

    with progress_bar() as show, patch.object(remote, "Worker", timed_worker(lines)):
        ran = run_study(
            stores, STUDY, config, dataset, make_executor, space=ONE_SETTING, progress=show
        )
    slots = [Slot.read(path) for path in sorted(lines.iterdir())]
    return accounts(ran, slots, launched[0], config)


def accounts(ran: Ran, slots: Sequence[Slot], launched: float, config: StudyConfig) -> Any:
    """Seconds and shares of a study's slots."""
    training = sum(slot.training for slot in slots)
    overhead = sum(slot.overhead for slot in slots)
    total = training + overhead
    last = max(slot.ended for slot in slots)
    parts = ("set_up", "between_epochs", "between_trials")
    return {
        "share": round(overhead / total, 4),
        "limit": LIMIT,
        "parts": {name: round(sum(getattr(s, name) for s in slots) / total, 4) for name in parts},
        "trials": sum(slot.trials for slot in slots),
        "train_size": config.train_size,
        "trial_seconds": round(training / sum(slot.trials for slot in slots), 2),
        "overhead_ms_a_trial": round(1000 * overhead / sum(slot.trials for slot in slots), 1),
        "start_seconds": round(mean(slot.began - launched for slot in slots), 2),
        "idle_at_end_seconds": round(sum(last - slot.ended for slot in slots), 2),
        "coordinator_busy": round((ran.seconds - ran.waited) / ran.seconds, 4),
        "tracking_busy": round(ran.tracking_seconds / ran.seconds, 4),
    }


def show_share(found: dict[str, Any]) -> None:
    """Print the first part."""
    print(
        f"{found['trials']} trials of {found['trial_seconds']} s on {WORKERS} workers: "
        f"{100 * found['share']:.2f}% of the slots' time is not training "
        f"({found['overhead_ms_a_trial']:.0f} ms a trial; to be at most {100 * LIMIT:g}%)"
    )
    for name, share in found["parts"].items():
        print(f"  {name.replace('_', ' '):16}{100 * share:6.2f}%")
    print(
        f"  apart: {found['start_seconds']} s until a worker trains, "
        f"{found['idle_at_end_seconds']} s idle at the end; the coordinator is busy for "
        f"{100 * found['coordinator_busy']:.1f}% of the time, with tracking for "
        f"{100 * found['tracking_busy']:.1f}%"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("share", "coordinator"), help="one part (both)")
    parser.add_argument("--trials", type=int, default=20, help="real ones (20)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of training in each (5)")
    parser.add_argument(
        "--finished",
        type=int,
        nargs="+",
        default=[100, 1000, 5000],
        metavar="N",
        help="trials that a study has already (100 1000 5000)",
    )
    parser.add_argument("--measured", type=int, default=50, help="trials that are measured (50)")
    parser.add_argument(
        "--from-scratch", action="store_true", help="let the coordinator run the finished ones too"
    )
    parser.add_argument(
        "--profile",
        type=int,
        metavar="LINES",
        help="print so many lines of a profile of CPU time (slower)",
    )
    options = parser.parse_args()
    start_alone()
    dataset = open_dataset()
    line: dict[str, Any] = {"benchmark": "study_overhead"}
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "coordinator":
            place = Path(folder) / "share"
            place.mkdir()
            line |= measure_share(options, dataset, place)
            show_share(line)
        if options.only != "share":
            epochs = record(dataset)
            found = {}
            for count in options.finished:
                place = Path(folder) / str(count)
                place.mkdir()
                found[str(count)] = measure_coordinator(options, dataset, epochs, count, place)
            show_coordinator(found)
            line["coordinator"] = found
    print(json.dumps({**line, **machine(1)}))


if __name__ == "__main__":
    main()
