"""Trouble inside a training is an event; time that runs out is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.training.events import CheckpointReady, EpochEnded, Event, Failed, Finished, Started
from qm9flow.training.fit import fit
from qm9flow.training.metrics import training_sample
from qm9flow.training.session import Session


def run(config: TrainConfig, dataset: Dataset, checkpoint: bytes | None = None) -> list[Event]:
    return list(fit(config, dataset, checkpoint=checkpoint))


def failure(events: list[Event]) -> Failed:
    last = events[-1]
    assert isinstance(last, Failed), last
    return last


def test_positions_that_are_nan_are_dead(tiny: TrainConfig, dataset: Dataset) -> None:
    positions = np.array(dataset.positions)
    molecule = training_sample(tiny, dataset).train[100]
    positions[dataset.ptr[molecule]] = np.nan
    failed = failure(run(tiny, replace(dataset, positions=positions)))
    assert failed.reason == "dead"
    assert "epoch 1" in failed.message
    assert failed.gradients is not None


def test_predictions_that_are_nan_are_dead(
    tiny: TrainConfig, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"val/score": float("nan")}
    monkeypatch.setattr("qm9flow.training.loaded.LoadedData.validate", lambda *_: metrics)
    assert failure(run(tiny, dataset)).reason == "dead"


def test_an_absurd_learning_rate_ends_the_training(tiny: TrainConfig, dataset: Dataset) -> None:
    model = replace(tiny.model, conv_layers=4, fc_layers=4)
    config = replace(
        tiny, model=model, learning_rate=10.0, grad_clip=None, max_epochs=40, warmup_steps=0
    )
    failed = failure(run(config, dataset))
    assert failed.reason in ("dead", "exploding")
    assert "learning rate 10" in failed.message
    assert failed.gradients is None or failed.gradients.samples > 0


def test_targets_with_holes_are_impossible(tiny: TrainConfig, dataset: Dataset) -> None:
    raw = np.array(dataset.raw)
    molecule = training_sample(tiny, dataset).validation[7]
    raw[molecule, 3] = np.inf
    failed = failure(run(tiny, replace(dataset, raw=raw)))
    assert failed.reason == "impossible"
    assert str(molecule) in failed.message


@pytest.mark.parametrize("change", [{"train_size": 10**6}, {"val_size": 10**6}, {"device": "cuda"}])
def test_impossible_configurations_say_why(
    tiny: TrainConfig,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    events = run(replace(tiny, **change), dataset)
    assert len(events) == 1
    failed = failure(events)
    assert failed.reason == "impossible"
    assert next(iter(change)) in failed.message


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "out_of_memory"),
        (RuntimeError("shapes do not match"), "crash"),
    ],
)
def test_errors_of_torch_are_reported(
    tiny: TrainConfig,
    dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def fail(_: Session) -> EpochEnded:
        raise error

    monkeypatch.setattr(Session, "run_epoch", fail)
    events = run(tiny, dataset)
    assert isinstance(events[0], Started)
    assert failure(events).reason == reason


def test_memory_that_really_runs_out_is_reported(
    tiny: TrainConfig, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Session) -> EpochEnded:
        torch.empty(2**58)
        raise AssertionError

    monkeypatch.setattr(Session, "run_epoch", fail)
    assert failure(run(tiny, dataset)).reason == "out_of_memory"


class Clock:
    """A clock that goes on by 10 ms whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.01
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("qm9flow.training.session.time", clock)
    return clock


def epochs(events: list[Event]) -> list[EpochEnded]:
    return [event for event in events if isinstance(event, EpochEnded)]


def test_time_runs_out_in_the_middle_of_an_epoch(
    tiny: TrainConfig, dataset: Dataset, clock: Clock
) -> None:
    # 6 steps an epoch take 0.08 s and a validation 0.01 s: 3 epochs, and a few steps more
    config = replace(tiny, max_minutes=0.3 / 60, max_epochs=1000, schedule="cosine")
    events = run(config, dataset)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.ending, finished.epochs) == ("max_minutes", 4)
    last = epochs(events)[-1].metrics
    assert last["train/lr"] < 0.01 * config.learning_rate
    assert last["train/seconds"] < 0.07
    spent = sum(e.metrics["train/seconds"] + e.metrics["val/seconds"] for e in epochs(events))
    assert spent == pytest.approx(0.3, abs=0.021)


def test_the_smallest_budget_still_gives_a_model(
    tiny: TrainConfig, dataset: Dataset, clock: Clock
) -> None:
    events = run(replace(tiny, max_minutes=1e-9), dataset)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.ending, finished.epochs, finished.best_epoch) == ("max_minutes", 1, 1)


def test_the_budget_counts_over_resumes(tiny: TrainConfig, dataset: Dataset, clock: Clock) -> None:
    config = replace(tiny, max_minutes=0.3 / 60, max_epochs=1000)
    whole = run(config, dataset)
    blobs = [event.blob for event in whole if isinstance(event, CheckpointReady)]
    clock.now += 1000
    rest = run(config, dataset, checkpoint=blobs[1])
    assert [event.epoch for event in epochs(rest)] == [3, 4]
    ended = run(config, dataset, checkpoint=blobs[-1])
    assert [type(event) for event in ended] == [Started, Finished]
    assert isinstance(ended[-1], Finished)
    assert ended[-1].ending == "max_minutes"


def test_waiting_for_the_reader_costs_no_budget(
    tiny: TrainConfig, dataset: Dataset, clock: Clock
) -> None:
    seen = []
    for event in fit(replace(tiny, max_minutes=1.0), dataset):
        clock.now += 1000
        seen.append(event)
    assert isinstance(seen[-1], Finished)
    assert seen[-1].ending == "max_epochs"
