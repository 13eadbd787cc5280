"""How fast a training is, and on how many threads it is fastest."""

import dataclasses
import time
from collections.abc import Iterator

import torch

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import TrainingError
from qm9flow.training.events import EpochEnded, Failed
from qm9flow.training.fit import fit

TIMED_MOLECULES = 2048
"""Training molecules that speeds are measured on: the same for all, in the same order."""


def measure_speed(
    config: TrainConfig, dataset: Dataset, seconds: float = 2.0, threads: int = 1
) -> float:
    """Time a training alone: the same molecules in the same order, whatever the configuration.

    Call it one configuration after another, with nothing else running.

    Args:
        config: What to train; its sizes, budgets and seed do not count.
        dataset: All molecules.
        seconds: How long to measure, after a first epoch that does not count; a training whose
            first epoch is longer than that is timed by it.
        threads: Of torch; several wait for each other on a busy machine.

    Returns:
        Molecules a second, validation left out.

    Raises:
        TrainingError: The training fails.
    """
    timed = dataclasses.replace(
        config,
        train_size=min(TIMED_MOLECULES, config.train_size or TIMED_MOLECULES),
        val_size=1,
        max_epochs=100_000,
        max_minutes=None,
        checkpoint_every=100_000,
        patience=None,
        schedule="constant",
        growth=0,
        seed=0,
        threads=threads,
    )
    molecules = timed.train_size or 0
    epochs: list[float] = []
    deadline = time.monotonic() + seconds
    stream = fit(timed, dataset)
    for event in stream:
        if isinstance(event, Failed):
            raise TrainingError(f"the configuration cannot be timed: {event.message}")
        if isinstance(event, EpochEnded):
            epochs.append(event.metrics["train/seconds"])
            if len(epochs) == 1 and epochs[0] < seconds:
                deadline = time.monotonic() + seconds
            if time.monotonic() >= deadline:
                break
    stream.close()
    counted = epochs[1:] or epochs
    return molecules * len(counted) / sum(counted)


def fastest_threads(config: TrainConfig, dataset: Dataset, seconds: float = 2.0) -> int:
    """Find out on how many threads a training on a CPU is fastest here and now.

    A small network gains little from a second thread, and on a busy machine, where threads spin
    while one of them has no core, it loses most of its speed. So 1, 2, 4, ... are timed, up to what
    torch would take, as long as each is faster than the one before.

    Args:
        config: What to train.
        dataset: All molecules.
        seconds: How long each number is timed.

    Returns:
        Threads.

    Raises:
        TrainingError: The training fails.
    """
    best, fastest = 1, 0.0
    most = torch.get_num_threads()
    for threads in _doubled(most) if most > 1 else ():
        speed = measure_speed(config, dataset, seconds, threads)
        if speed <= fastest:
            break
        best, fastest = threads, speed
    return best


def _doubled(most: int) -> Iterator[int]:
    """1, 2, 4, ... and the most."""
    threads = 1
    while threads < most:
        yield threads
        threads *= 2
    yield most
