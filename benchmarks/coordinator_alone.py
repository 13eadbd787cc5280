"""The coordinator alone: trials that train nothing, so that what is left is its own work."""

import argparse
import cProfile
import io
import math
import pstats
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import optuna
from our_study import Ran, draw, run_study, stores_at
from peers import note

from qm9flow.cli.progress import progress_bar
from qm9flow.config import StudyConfig
from qm9flow.data.store import Dataset
from qm9flow.tracking.stores import Stores, connect
from qm9flow.training.events import EpochEnded, Event, Failed, Finished
from qm9flow.training.fit import fit
from qm9flow.tuning.executors import Answer, Executor, Job, TrialEvent
from qm9flow.tuning.history import History, open_storage
from qm9flow.tuning.records import ATTRIBUTE_OUTCOME, ATTRIBUTE_RUN, ATTRIBUTE_STARTS
from qm9flow.tuning.sampling import distributions
from qm9flow.tuning.spaces import Params, Space, get_space

EPOCHS = 9
WORKERS = 2
STUDY = "overhead"
SPREAD = 0.3
"""Standard deviation of the logarithm of scores."""
THIRD, NINTH = -0.4307, -1.2206
"""Quantiles of the normal distribution: trials below them pass one rung, or both."""
RECORDED_MOLECULES = 512
PARTS = {
    "ask": ("ask",),
    "optuna": ("annotate", "report", "tell", "note"),
}
"""Methods of `History` that are timed."""


class Recorded(Executor):
    """Trains nothing: every trial says what one training once said, with a score of its own."""

    def __init__(self, epochs: Sequence[Sequence[Event]], slots: int, seed: int) -> None:
        """Take the events of a training, epoch by epoch."""
        self._epochs, self._seed = epochs, seed
        self._trials: dict[int, tuple[int, int] | None] = dict.fromkeys(range(slots))
        self._asked: deque[int] = deque()

    def idle(self) -> tuple[int, ...]:
        """Slots without a trial."""
        return tuple(slot for slot, trial in self._trials.items() if trial is None)

    def start(self, slot: int, job: Job) -> None:
        """Put a trial into a slot."""
        (trial,) = job.trials
        self._trials[slot] = (trial.number, 0)

    def advance(self, slot: int) -> None:
        """Ask for an epoch."""
        self._asked.append(slot)

    def collect(self) -> list[Answer]:
        """Answer for one slot."""
        if not self._asked:
            return []
        slot = self._asked.popleft()
        trial = self._trials[slot]
        assert trial is not None
        number, epoch = trial
        self._trials[slot] = (number, epoch + 1)
        factor = math.exp(SPREAD * luck(self._seed, number))
        events = (TrialEvent(number, spread(event, factor)) for event in self._epochs[epoch])
        return [Answer(slot, tuple(events))]

    def close(self, slot: int, number: int) -> None:
        """Empty a slot."""
        self._trials[slot] = None

    def shut_down(self) -> None:
        """Nothing to free."""


def luck(seed: int, number: int) -> float:
    """A trial's normal random number."""
    return float(np.random.default_rng([seed, number]).normal())


def spread(event: Event, factor: float) -> Event:
    """An event with another score."""
    if isinstance(event, EpochEnded):
        score = event.metrics["val/score"] * factor
        return replace(event, metrics={**event.metrics, "val/score": score})
    if isinstance(event, Finished):
        score = event.best_metrics["val/score"] * factor
        return replace(event, best_metrics={**event.best_metrics, "val/score": score})
    return event


def record(dataset: Dataset) -> list[list[Event]]:
    """What one real training says, epoch by epoch."""
    config = replace(
        get_space("seed").recipe,
        train_size=RECORDED_MOLECULES,
        val_size=200,
        max_epochs=EPOCHS,
        device="cpu",
    )
    epochs: list[list[Event]] = [[]]
    for event in fit(config, dataset):
        if isinstance(event, Failed):
            raise SystemExit(f"the training failed: {event.message}")
        has_epoch = any(isinstance(item, EpochEnded) for item in epochs[-1])
        if isinstance(event, EpochEnded) and has_epoch:
            epochs.append([])
        epochs[-1].append(event)
    return epochs


def fill(
    stores: Stores, config: StudyConfig, epochs: Sequence[Sequence[Event]], count: int
) -> None:
    """Put finished trials into Optuna, as the coordinator would have left them."""
    storage = open_storage(stores.optuna_url)
    study = optuna.create_study(storage=storage, study_name=STUDY, direction="minimize")
    space = get_space(config.preset)
    curve = [
        event.metrics["val/score"]
        for events in epochs
        for event in events
        if isinstance(event, EpochEnded)
    ]
    with progress_bar() as show:
        points = draw(space, replace(config, sampler="random"), count)
        for number, point in enumerate(points):
            study.add_trial(finished(space, point, curve, luck(config.seed, number), number))
            show("finished trials", number + 1, count)


def finished(
    space: Space, point: Params, curve: Sequence[float], chance: float, number: int
) -> optuna.trial.FrozenTrial:
    """A trial that has gone as far as halving lets one of its luck."""
    reached = EPOCHS if chance < NINTH else EPOCHS // 3 if chance < THIRD else EPOCHS // 9
    scores = [score * math.exp(SPREAD * chance) for score in curve[:reached]]
    is_complete = reached == EPOCHS
    state = optuna.trial.TrialState.COMPLETE if is_complete else optuna.trial.TrialState.PRUNED
    outcome = {
        "state": "complete" if is_complete else "pruned",
        "score": min(scores),
        "reason": None if is_complete else "halving",
        "epochs": reached,
        "seconds": 5.0,
    }
    return optuna.trial.create_trial(
        state=state,
        value=min(scores),
        params=point,
        distributions=distributions(space, point),
        intermediate_values=dict(enumerate(scores, start=1)),
        user_attrs={
            ATTRIBUTE_STARTS: {"count": 1, "epoch": 0},
            ATTRIBUTE_RUN: f"{number:032x}",
            ATTRIBUTE_OUTCOME: outcome,
        },
    )


@contextmanager
def timed_methods() -> Iterator[dict[str, float]]:
    """Seconds inside `History`, by part, while the block runs."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, inner: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - began

        return call

    before = {name: getattr(History, name) for names in PARTS.values() for name in names}
    for part, names in PARTS.items():
        for name in names:
            setattr(History, name, timed(part, before[name]))
    try:
        yield seconds
    finally:
        for name, inner in before.items():
            setattr(History, name, inner)


def measure_coordinator(
    options: argparse.Namespace,
    dataset: Dataset,
    epochs: Sequence[Sequence[Event]],
    count: int,
    folder: Path,
) -> dict[str, Any]:
    """Trials a second after so many finished ones, and where the time goes."""
    stores = stores_at(folder)
    connect(stores)
    config = StudyConfig(preset="seed", max_epochs=EPOCHS, n_jobs=WORKERS, device="cpu")
    began = time.perf_counter()
    if options.from_scratch:
        run_recorded(stores, replace(config, n_trials=count), dataset, epochs)
    else:
        fill(stores, config, epochs, count)
    filled = time.perf_counter() - began
    config = replace(config, n_trials=count + options.measured)
    profile = cProfile.Profile(time.process_time) if options.profile else None
    with timed_methods() as seconds:
        ran = run_recorded(stores, config, dataset, epochs, profile)
    if profile is not None:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(options.profile)
        note(f"at {count} finished trials\n{text.getvalue()}")
    measured = options.measured
    parts = {**seconds, "tracking": ran.tracking_seconds}
    parts["rest"] = ran.seconds - sum(parts.values())
    return {
        "trials_per_second": round(measured / ran.seconds, 2),
        "ms_a_trial": round(1000 * ran.seconds / measured, 1),
        "cpu_ms_a_trial": round(1000 * ran.cpu_seconds / measured, 1),
        "ms_by_part": {name: round(1000 * value / measured, 1) for name, value in parts.items()},
        "epochs_a_trial": round(
            mean(trial.epochs for trial in ran.result.trials if trial.number >= count), 2
        ),
        "filling_seconds": round(filled, 1),
    }


def run_recorded(
    stores: Stores,
    config: StudyConfig,
    dataset: Dataset,
    epochs: Sequence[Sequence[Event]],
    profile: cProfile.Profile | None = None,
) -> Ran:
    """A study whose trials train nothing."""
    with progress_bar() as show:
        return run_study(
            stores,
            STUDY,
            config,
            dataset,
            lambda: Recorded(epochs, WORKERS, config.seed),
            progress=show,
            profile=profile,
        )


def show_coordinator(found: dict[str, dict[str, Any]]) -> None:
    """Print the second part."""
    names = list(next(iter(found.values()))["ms_by_part"])
    head = "".join(f"{name:>10}" for name in ("trials/s", "ms/trial", "of CPU", *names))
    print(f"{'finished':>9}{head}")
    for count, item in found.items():
        values = [item["ms_a_trial"], item["cpu_ms_a_trial"], *item["ms_by_part"].values()]
        cells = "".join(f"{value:10.1f}" for value in values)
        print(f"{count:>9}{item['trials_per_second']:10.2f}{cells}")
