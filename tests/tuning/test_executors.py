"""Slots that train: lazily, side by side, and never taking the study along."""

import dataclasses

import pytest
from small_study import TINY, small_config

from qm9flow.data.store import Dataset
from qm9flow.training.events import CheckpointReady, EpochEnded, Failed, Finished, Started
from qm9flow.tuning import executors
from qm9flow.tuning.executors import Executor, InProcessExecutor, Job, TrialJob
from qm9flow.tuning.spaces import to_train_config

CONFIG = to_train_config(TINY.first, small_config(), 0, TINY)


def epoch(executor: Executor) -> list[tuple[int, type]]:
    """Who said what in one epoch."""
    executor.advance(0)
    (answer,) = executor.collect()
    assert answer.slot == 0
    return [(item.number, type(item.event)) for item in answer.events]


def test_an_incomplete_executor_cannot_be_made():
    class Half(Executor):
        def idle(self) -> tuple[int, ...]:
            return (0,)

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_nothing_is_trained_before_it_is_asked_for(dataset: Dataset):
    executor = InProcessExecutor(dataset)
    assert executor.collect() == []
    executor.start(0, Job((TrialJob(7, CONFIG, checkpoint_seconds=0.0),)))
    assert executor.collect() == []
    assert epoch(executor) == [(7, Started), (7, EpochEnded), (7, CheckpointReady)]
    assert epoch(executor) == [(7, EpochEnded), (7, CheckpointReady)]
    assert epoch(executor) == [(7, EpochEnded), (7, CheckpointReady)]
    assert epoch(executor) == [(7, Finished)]
    executor.close(0, 7)
    executor.close(0, 7)
    executor.shut_down()


def test_several_trials_share_a_slot(dataset: Dataset):
    executor = InProcessExecutor(dataset)
    executor.start(0, Job((TrialJob(1, CONFIG, checkpoint_seconds=0.0), TrialJob(2, CONFIG))))
    assert epoch(executor) == [
        (1, Started),
        (1, EpochEnded),
        (1, CheckpointReady),
        (2, Started),
        (2, EpochEnded),
    ]
    executor.close(0, 1)
    assert epoch(executor) == [(2, EpochEnded)]
    executor.shut_down()
    assert epoch(executor) == []


def test_a_short_trial_has_no_checkpoint(dataset: Dataset):
    executor = InProcessExecutor(dataset)
    executor.start(0, Job((TrialJob(3, CONFIG),)))
    said = [epoch(executor) for _ in range(CONFIG.max_epochs + 1)]
    assert said == [
        [(3, Started), (3, EpochEnded)],
        *[[(3, EpochEnded)]] * (CONFIG.max_epochs - 1),
        [(3, Finished)],
    ]


def test_a_checkpoint_is_gone_on_from_and_a_broken_one_is_not(dataset: Dataset):
    executor = InProcessExecutor(dataset)
    executor.start(0, Job((TrialJob(0, CONFIG, checkpoint_seconds=0.0),)))
    executor.advance(0)
    blob = executor.collect()[0].events[-1].event
    assert isinstance(blob, CheckpointReady)
    executor.shut_down()
    for checkpoint, done in ((blob.blob, 1), (blob.blob[:-3], 0), (b"", 0)):
        executor.start(0, Job((TrialJob(0, CONFIG, checkpoint),)))
        executor.advance(0)
        started = executor.collect()[0].events[0].event
        assert isinstance(started, Started)
        assert started.epoch == done
        executor.shut_down()


def test_a_bug_costs_its_trial_only(dataset: Dataset, monkeypatch):
    executor = InProcessExecutor(dataset)
    real = executors.fit

    def fit(config, data, **options):
        if config.seed != CONFIG.seed:
            raise IndexError("no such layer")
        return real(config, data, **options)

    monkeypatch.setattr(executors, "fit", fit)
    broken = dataclasses.replace(CONFIG, seed=CONFIG.seed + 1)
    executor.start(0, Job((TrialJob(0, broken), TrialJob(1, CONFIG))))
    executor.advance(0)
    events = executor.collect()[0].events
    failure = events[0].event
    assert isinstance(failure, Failed)
    assert (failure.reason, failure.message) == ("crash", "IndexError: no such layer")
    assert [item.number for item in events] == [0, 1, 1]
