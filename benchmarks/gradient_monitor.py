"""What the gradient monitor costs: the same training with it and without, epoch by epoch in turn.

    python benchmarks/gradient_monitor.py

Two cases: the smallest steps of a study, where anything beside the network weighs most, and the
group's network. CPU time of one thread, so that other work on the machine matters little. At the
start of a training gradients are sampled more often: both phases are timed, and weighed by the
steps that they have in a trial of a study's default size. The last line is JSON, of the worse
case: `share` of the trial's time spent inside the monitor, `early_share` of its first steps', and
`ratio`, the quickest later epoch with it over the quickest without.
"""

import functools
import json
import platform
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import torch

from qm9flow.config import MPNNConfig, StudyConfig, TrainConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.training.events import EpochEnded, Event
from qm9flow.training.fit import fit
from qm9flow.training.gradients import EARLY_STEPS, GradientMonitor

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
"""Training, and later epochs that are timed; such an epoch has `STEPS` steps and, with the monitor,
one sample: the default rate."""
EARLY_EPOCHS = EARLY_STEPS // STEPS
TRIAL = StudyConfig()

spent = 0.0
is_on = True


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add a method's CPU time to `spent`, once where one calls another; or skip it."""

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        global spent  # noqa: PLW0603
        if not is_on:
            return "healthy" if function.__name__ == "check" else None
        before = spent
        started = time.process_time()
        result = function(*args, **kwargs)
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


def measure(config: TrainConfig, dataset: Dataset, epochs: int) -> tuple[float, float, float]:
    """Share of time inside the monitor, early and later; the quickest epoch over that without."""
    global spent  # noqa: PLW0603
    with_monitor, without = fit(config, dataset), fit(config, dataset)
    watched, bare, inside = [], [], []
    for _ in range(EARLY_EPOCHS + epochs):
        spent = 0.0
        watched.append(epoch_seconds(with_monitor, watched=True))
        inside.append(spent)
        bare.append(epoch_seconds(without, watched=False))
    early, late = slice(1, EARLY_EPOCHS), slice(EARLY_EPOCHS, None)  # the first warms up
    shares = [sum(inside[part]) / sum(watched[part]) for part in (early, late)]
    return shares[0], shares[1], min(watched[late]) / min(bare[late])


def of_trial(config: TrainConfig, early: float, late: float) -> float:
    """Share of a whole trial, from those of its first steps and of the others."""
    steps = TRIAL.max_epochs * (TRIAL.train_size or 0) / config.batch_size
    weight = min(1.0, EARLY_STEPS / steps)
    return weight * early + (1 - weight) * late


def main() -> None:
    """Measure all cases and print them."""
    for name in ("sample", "check", "summarise"):
        setattr(GradientMonitor, name, timed(getattr(GradientMonitor, name)))
    dataset = open_dataset()
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, one thread")
    shares, earlies, ratios = [], [], []
    for name, (config, epochs) in CASES.items():
        early, late, ratio = measure(config, dataset, epochs)
        share = of_trial(config, early, late)
        print(
            f"{name:36} inside the monitor {100 * share:.2f} % of a trial, {100 * early:.2f} % of "
            f"its first {EARLY_STEPS} steps; later with / without {ratio:.4f}"
        )
        shares.append(share)
        earlies.append(early)
        ratios.append(ratio)
    worst = {"share": shares, "early_share": earlies, "ratio": ratios}
    print(json.dumps({name: round(max(values), 5) for name, values in worst.items()}))


if __name__ == "__main__":
    main()
