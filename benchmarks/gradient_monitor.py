"""What the gradient monitor costs: the same training with it and without, epoch by epoch in turn.

    python benchmarks/gradient_monitor.py

Two cases: the smallest steps of a study, where anything beside the network weighs most, and the
group's network. CPU time of one thread, so that other work on the machine matters little. The
last line is JSON, of the worse case: `share` of training time spent inside the monitor, and
`ratio`, the quickest epoch with it over the quickest without.
"""

import functools
import json
import platform
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import torch

from qm9flow.config import MPNNConfig, TrainConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.training.events import EpochEnded, Event
from qm9flow.training.fit import fit
from qm9flow.training.gradients import GradientMonitor

STEPS = 50
COMMON = TrainConfig(
    val_size=1,
    max_epochs=1000,
    checkpoint_every=1000,
    monitor_every=STEPS,
    device="cpu",
    threads=1,
)
CASES = {
    "16 hidden, 1 + 1 layers, batch 1": (
        replace(
            COMMON,
            model=MPNNConfig(conv_layers=1, fc_layers=1, hidden=16),
            batch_size=1,
            train_size=STEPS,
        ),
        20,
    ),
    "64 hidden, 4 + 4 layers, batch 8": (
        replace(COMMON, batch_size=8, train_size=8 * STEPS),
        7,
    ),
}
"""Training, and epochs that are timed; an epoch has `STEPS` steps and, with the monitor, one
sample: the default rate."""

spent = 0.0
is_on = True


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a method's CPU time to `spent`, once where one calls another; or skip it."""

    @functools.wraps(function)
    def measured(*args: Any) -> Any:
        global spent  # noqa: PLW0603
        if not is_on:
            return "healthy" if function.__name__ == "check" else None
        before = spent
        started = time.process_time()
        result = function(*args)
        spent = before + time.process_time() - started
        return result

    return measured


def epoch_seconds(stream: Generator[Event, None, None], *, watched: bool) -> float:
    """CPU time of a stream's next epoch."""
    global is_on  # noqa: PLW0603
    is_on = watched
    started = time.process_time()
    while not isinstance(next(stream), EpochEnded):
        pass
    return time.process_time() - started


def measure(config: TrainConfig, dataset: Dataset, epochs: int) -> tuple[float, float]:
    """Share of time inside the monitor, and the quickest epoch with it over that without."""
    global spent  # noqa: PLW0603
    with_monitor, without = fit(config, dataset), fit(config, dataset)
    epoch_seconds(with_monitor, watched=True)  # warm-up
    epoch_seconds(without, watched=False)
    watched, bare, inside = [], [], 0.0
    for _ in range(epochs):
        spent = 0.0
        watched.append(epoch_seconds(with_monitor, watched=True))
        inside += spent
        bare.append(epoch_seconds(without, watched=False))
    return inside / sum(watched), min(watched) / min(bare)


def main() -> None:
    """Measure all cases and print them."""
    for name in ("sample", "check", "summarise"):
        setattr(GradientMonitor, name, timed(getattr(GradientMonitor, name)))
    dataset = open_dataset()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    shares, ratios = [], []
    for name, (config, epochs) in CASES.items():
        share, ratio = measure(config, dataset, epochs)
        print(f"{name:36} {100 * share:6.3f} % inside the monitor, with / without {ratio:.4f}")
        shares.append(share)
        ratios.append(ratio)
    print(json.dumps({"share": round(max(shares), 5), "ratio": round(max(ratios), 4)}))


if __name__ == "__main__":
    main()
