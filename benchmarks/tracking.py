"""Share of a study's time that is spent on tracking, at trials of five seconds.

Real trainings of the group's network on QM9 (9 epochs, sized to take the asked seconds), recorded
as a study records them: a nested run in MLflow on SQLite, metrics, gradient histograms, the model,
TensorBoard's files, the study's progress. The trainings are the clock: what is not spent inside
`fit` is tracking. Work of others on the machine blurs wall times, so tracking's CPU time is given
beside them. The last line is JSON; `share` is to be at most 0.03.

    python benchmarks/tracking.py --trials 8 --seconds 5
"""

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from qm9flow.config import MPNNConfig, TrainConfig, to_dict
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.tracking import provenance
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded, Failed, Finished
from qm9flow.training.fit import fit

EPOCHS = 9
LIMIT = 0.03

T = TypeVar("T")


class Clock:
    """Sums the time spent in calls: wall time, and CPU time of the calling thread."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    def time(self, call: Callable[[], T]) -> T:
        """Make a call and add its time."""
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - start
            self.cpu_seconds += time.thread_time() - cpu


def sized(dataset: Dataset, config: TrainConfig, seconds: float) -> TrainConfig:
    """The configuration with as many training molecules as take the seconds, and no longer.

    Two short trainings after one to warm up give the cost of a molecule and that of the rest.
    """
    costs = {}
    for size in (512, 512, 2048):
        short = dataclasses.replace(config, train_size=size, max_epochs=2)
        start = time.perf_counter()
        epochs = [event for event in fit(short, dataset) if isinstance(event, EpochEnded)]
        assert len(epochs) == 2
        costs[size] = time.perf_counter() - start
    per_molecule = (costs[2048] - costs[512]) / (2 * (2048 - 512))
    rest = max(0.0, costs[512] / 2 - 512 * per_molecule)
    size = int((seconds / EPOCHS - rest) / max(per_molecule, 1e-5))
    return dataclasses.replace(
        config, train_size=max(size, config.batch_size), max_minutes=seconds / 60
    )


def run_trial(number: int, study: StudyTracker, dataset: Dataset, config: TrainConfig) -> Clock:
    """One trial as a study runs it; gives the clock of its training."""
    clock = Clock()
    parameters = {
        "conv_layers": 4,
        "fc_layers": 4,
        "hidden": 64,
        "batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
    }
    values = to_dict(dataclasses.replace(config, seed=number))
    tracker = study.open_trial(number, parameters, {"preset": "seed"}, config=values)
    events = fit(dataclasses.replace(config, seed=number), dataset)
    while (event := clock.time(lambda: next(events, None))) is not None:
        tracker.log(event)
        if isinstance(event, Finished):
            tracker.save_model(event.weights, values)
        if isinstance(event, Failed):
            raise SystemExit(f"the training failed: {event.message}")
    tracker.finish("complete")
    study.log_progress({"complete": number + 1, "pruned": 0, "failed": 0}, 0.5)
    return clock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    dataset = open_dataset()
    recipe = TrainConfig(model=MPNNConfig(), val_size=1000, max_epochs=EPOCHS, device="cpu")
    config = sized(dataset, recipe, options.seconds)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "mlruns"
        stores = Stores(f"sqlite:///{folder}/mlflow.db", "", base / "tensorboard", base / "state")
        study = StudyTracker.open(stores, "benchmark", {"n_trials": options.trials})
        study.log_dataset(
            digest=dataset.digest, molecules=len(dataset), split="seed", split_digest="-"
        )
        run_trial(0, study, dataset, config)  # first calls load code and fill caches
        before = study.seconds_spent
        shares, totals, tracked, tracked_cpu = [], [], [], []
        for number in range(1, options.trials + 1):
            start, cpu = time.perf_counter(), time.thread_time()
            clock = run_trial(number, study, dataset, config)
            totals.append(time.perf_counter() - start)
            tracked.append(totals[-1] - clock.seconds)
            tracked_cpu.append(time.thread_time() - cpu - clock.cpu_seconds)
            shares.append(tracked[-1] / totals[-1])
            print(
                f"trial {number}: {clock.seconds:.2f} s training, "
                f"{1000 * tracked[-1]:.0f} ms tracking "
                f"({1000 * tracked_cpu[-1]:.0f} ms of CPU), {100 * shares[-1]:.2f}%"
            )
        own = study.seconds_spent - before
        if study.errors:
            raise SystemExit(f"{study.errors} calls to the stores failed")
        written = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        study.finish("FINISHED")
    print(f"{platform.platform()}, {provenance.hardware()['processor']}")
    print(
        f"load of the machine: {os.getloadavg()[0]:.1f} on {provenance.hardware()['cores']} cores"
    )
    print(
        json.dumps(
            {
                "share": round(sum(tracked) / sum(totals), 4),
                "share_median": round(median(shares), 4),
                "share_by_own_account": round(own / sum(totals), 4),
                "limit": LIMIT,
                "trial_seconds": round(median(totals), 2),
                "tracking_ms": round(1000 * median(tracked), 1),
                "tracking_cpu_ms": round(1000 * median(tracked_cpu), 1),
                "cpu_share_at_asked_seconds": round(median(tracked_cpu) / options.seconds, 4),
                "trials": options.trials,
                "epochs": EPOCHS,
                "train_size": config.train_size,
                "mb_a_trial": round(written / 1e6 / (options.trials + 1), 2),
            }
        )
    )


if __name__ == "__main__":
    main()
