"""A study from start to end, in real stores, with real trainings on few molecules."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from accounts import check_ended, comparable, files_of, runs_of
from small_study import TINY, run_study, small_config, stores_at, with_recipe

from qm9flow.data.store import Dataset
from qm9flow.errors import StudyBusyError, StudyMismatchError
from qm9flow.tracking.stores import Stores, connect
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import Alarm, EpochEnded, Event, Failed, Finished
from qm9flow.tuning import books, coordinator
from qm9flow.tuning.executors import Answer, Executor, InProcessExecutor, Job, TrialEvent
from qm9flow.tuning.history import History
from qm9flow.tuning.ranges import FloatRange, IntRange
from qm9flow.tuning.records import show_study
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.study import open_study


class Wrapped(Executor):
    """Several in-process slots, whose trainings may be made to crash."""

    def __init__(self, dataset: Dataset, slots: int = 1, crashes: int = 0) -> None:
        self._inner = [InProcessExecutor(dataset) for _ in range(slots)]
        self._numbers: dict[int, list[int]] = {}
        self.crashes = crashes
        self.started: list[int] = []

    def idle(self) -> tuple[int, ...]:
        return tuple(slot for slot, inner in enumerate(self._inner) if inner.idle())

    def start(self, slot: int, job: Job) -> None:
        self._numbers[slot] = [item.number for item in job.trials]
        self.started += self._numbers[slot]
        self._inner[slot].start(0, job)

    def advance(self, slot: int) -> None:
        self._inner[slot].advance(0)

    def collect(self) -> list[Answer]:
        answers: list[Answer] = []
        for slot, inner in enumerate(self._inner):
            answers += [Answer(slot, self._spoilt(slot, item)) for item in inner.collect()]
        return answers

    def _spoilt(self, slot: int, answer: Answer) -> tuple[TrialEvent, ...]:
        if self.crashes == 0 or len(answer.events) == 1:
            return answer.events
        self.crashes -= 1
        failed = [TrialEvent(n, Failed("crash", "the worker died")) for n in self._numbers[slot]]
        return tuple(failed)

    def close(self, slot: int, number: int) -> None:
        self._inner[slot].close(0, number)

    def shut_down(self) -> None:
        for inner in self._inner:
            inner.shut_down()


def stop_after(epochs: int) -> Any:
    """Asked after each epoch, and before each trial; gives in at a certain time."""
    left = [epochs]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


def test_a_study_is_on_record_everywhere(undisturbed):
    stores, result = undisturbed
    trials = check_ended(stores, 5)
    assert trials == result.trials
    assert result.ending == "complete"
    assert trials[0].params == TINY.first
    assert result.counts["complete"] >= 1
    assert result.counts["pruned"] >= 1
    assert result.best is not None
    assert result.best.score == min(t.score for t in trials if t.state == "complete")
    for trial in trials:
        assert trial.seconds > 0
        assert trial.parameters > 0
        assert trial.molecules_per_second > 0
        if trial.state == "pruned":
            assert trial.reason == "halving"
            assert trial.epochs == 1
    (parent,), runs = runs_of(stores)
    for trial in trials:
        assert runs[trial.number].data.tags.get("message") == trial.message
    assert parent.data.metrics["study/best_score"] == result.best.score
    assert parent.data.metrics["study/complete"] == result.counts["complete"]


def test_a_stopped_study_goes_on_as_if_it_had_not(stores: Stores, dataset: Dataset, undisturbed):
    config = small_config(n_trials=5)
    seen: list[tuple[str, int, int]] = []
    first = run_study(stores, dataset, config, stop=stop_after(3))
    assert first.ending == "interrupted"
    assert [trial.state for trial in first.trials][-1] == "running"
    left = first.trials[-1]
    _, runs = runs_of(stores)
    assert runs[left.number].info.status == "KILLED"
    assert runs[left.number].data.tags["state"] == "interrupted"
    while True:
        result = run_study(
            stores,
            dataset,
            config,
            stop=stop_after(4),
            progress=lambda what, done, total: seen.append((what, done, total)),
        )
        if result.ending == "complete":
            break
    assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)
    assert seen[-1] == ("trials", 5, 5)
    parents, _ = runs_of(stores)
    assert len(parents) > 2


@pytest.mark.slow
def test_n_trials_is_a_total(stores: Stores, dataset: Dataset, undisturbed):
    run_study(stores, dataset, small_config(n_trials=2))
    again = run_study(stores, dataset, small_config(n_trials=2))
    assert (again.ending, len(again.trials)) == ("complete", 2)
    run_study(stores, dataset, small_config(n_trials=5))
    assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"train_size": 65}, {"max_epochs": 2}, {"sampler": "random"}],
)
def test_another_study_under_the_same_name_is_refused(stores, dataset, change):
    with open_study(stores, "demo", small_config(), dataset.digest, TINY):
        pass
    key, value = next(iter(change.items()))
    with (
        pytest.raises(StudyMismatchError, match=f"{key} was .*, now {value!r}"),
        open_study(stores, "demo", small_config(**change), dataset.digest, TINY),
    ):
        pass


def test_another_space_or_other_data_are_refused(stores, dataset):
    with open_study(stores, "demo", small_config(), dataset.digest, TINY):
        pass
    other = with_recipe(TINY, loss="mae")
    with (
        pytest.raises(StudyMismatchError, match="space was 'tiny:"),
        open_study(stores, "demo", small_config(), dataset.digest, other),
    ):
        pass
    with (
        pytest.raises(StudyMismatchError, match=r"data was .*, now 'feed'"),
        open_study(stores, "demo", small_config(), "feed", TINY),
    ):
        pass
    with open_study(stores, "demo", small_config(n_trials=9), dataset.digest, TINY) as study:
        assert study.config.n_trials == 9


def test_a_second_coordinator_is_refused(stores, dataset):
    with (
        open_study(stores, "demo", small_config(), dataset.digest, TINY),
        pytest.raises(StudyBusyError, match="study 'demo' is being run by process"),
    ):
        run_study(stores, dataset, small_config())


def test_a_coordinator_that_was_replaced_stops(stores, dataset):
    def replace() -> bool:
        note = {"host": "elsewhere", "pid": 1, "born": "", "since": "", "token": "x", "beat": 9e9}
        History.open(stores.optuna_url, "demo").note("lease", note)
        held[0]._lost.set()  # as its heartbeat would find out
        return False

    with open_study(stores, "demo", small_config(), dataset.digest, TINY) as study:
        held = [study.lease]
        tracker = StudyTracker.open(stores, "demo", {})
        worker = InProcessExecutor(dataset)
        with pytest.raises(StudyBusyError, match="taken over"):
            coordinator.Coordinator(study, tracker, worker, stop=replace).run()
    assert show_study(stores, "demo").counts == {"running": 1}


def test_a_diverging_training_is_pruned_with_the_reason(stores, dataset):
    wild = dataclasses.replace(
        with_recipe(TINY, grad_clip=None, warmup_steps=0, monitor_every=1, batch_size=1),
        parameters={"learning_rate": FloatRange(9.0, 10.0), "hidden": IntRange(2, 8)},
        first=None,
    )
    result = run_study(stores, dataset, small_config(n_trials=2), space=wild)
    assert result.counts == {"pruned": 2}
    for trial in check_ended(stores, 2):
        assert trial.reason in ("dead", "exploding", "dead_relu", "vanishing")
        assert trial.verdict == trial.reason == trial.alarm
        assert trial.message
        assert trial.epochs < 3
    _, runs = runs_of(stores)
    first = result.trials[0]
    tags = runs[0].data.tags
    assert tags["verdict"] == tags["reason"] == tags["alarm"] == first.reason
    assert tags["alarm_step"] == str(first.alarm_step)
    assert tags["message"] == first.message
    assert "gradients.png" in files_of(stores, runs[0].info.run_id)


class Alarmed(InProcessExecutor):
    """Trainings whose gradients gave a reason to stop in their second epoch."""

    def _epoch(self, number: int) -> list[Event]:
        return [
            dataclasses.replace(event, alarm=Alarm("dead_relu", 7, 2, 0.5))
            if isinstance(event, Finished) or (isinstance(event, EpochEnded) and event.epoch > 1)
            else event
            for event in super()._epoch(number)
        ]


def test_observed_trials_run_on_and_tell_where_they_would_have_ended(stores, dataset):
    config = small_config(n_trials=2, gradient_stop="observe", halving="off")
    result = run_study(stores, dataset, config, executor=Alarmed(dataset))
    assert result.counts == {"complete": 2}
    for trial in check_ended(stores, 2):
        assert (trial.epochs, trial.reason) == (3, None)
        assert (trial.alarm, trial.alarm_step, trial.alarm_seconds) == ("dead_relu", 7, 0.5)
    for run in runs_of(stores)[1].values():
        assert (run.data.tags["alarm"], run.data.tags["alarm_step"]) == ("dead_relu", "7")
        assert "reason" not in run.data.tags


def test_without_halving_all_trials_run_to_the_end(stores, dataset):
    config = small_config(n_trials=5, halving="off")
    result = run_study(stores, dataset, config)
    assert result.counts == {"complete": 5}
    with pytest.raises(StudyMismatchError, match="halving was 'off', now 'epochs'"):
        run_study(stores, dataset, small_config(n_trials=6))


def test_an_impossible_configuration_fails_its_trials_only(stores, dataset):
    worker = Wrapped(dataset)
    result = run_study(stores, dataset, small_config(n_trials=2, train_size=10**6), executor=worker)
    assert result.counts == {"failed": 2}
    assert result.best is None
    assert worker.started == [0, 1]
    for trial in check_ended(stores, 2):
        assert trial.reason == "impossible"
        assert "molecules" in trial.message


def test_a_crashed_worker_costs_nothing_but_time(stores, dataset, undisturbed):
    worker = Wrapped(dataset, crashes=2)
    run_study(stores, dataset, small_config(n_trials=5), executor=worker)
    assert comparable(check_ended(stores, 5)) == comparable(undisturbed[1].trials)
    assert worker.started[:4] == [0, 0, 0, 1]


def test_a_trial_is_retried_twice_and_told_once(stores, dataset):
    worker = Wrapped(dataset, crashes=3)
    result = run_study(stores, dataset, small_config(n_trials=2), executor=worker)
    assert [trial.state for trial in result.trials] == ["failed", "complete"]
    assert worker.started == [0, 0, 0, 1]
    first = check_ended(stores, 2)[0]
    assert (first.reason, first.message) == ("crash", "the worker died")


def test_several_slots(stores, dataset):
    worker = Wrapped(dataset, slots=3, crashes=2)
    config = small_config(n_trials=5)
    first = run_study(stores, dataset, config, executor=worker, stop=stop_after(6))
    assert first.ending == "interrupted"
    # One trial a slot: two were in work at the stop, and the third too unless halving ended it.
    assert sum(first.counts.values()) == 3
    assert first.counts["running"] + first.counts.get("pruned", 0) == 3
    assert first.counts["running"] >= 2
    worker = Wrapped(dataset, slots=3)
    result = run_study(stores, dataset, config, executor=worker)
    assert len(set(worker.started)) == len(worker.started)
    assert check_ended(stores, 5) == result.trials


class Interrupted(Wrapped):
    """Its user presses Ctrl-C twice."""

    def collect(self) -> list[Answer]:
        if len(self.started) == 2:
            raise KeyboardInterrupt
        return super().collect()


def test_a_second_ctrl_c_leaves_no_trial_running(stores, dataset):
    config = small_config(n_trials=3)
    with pytest.raises(KeyboardInterrupt):
        run_study(stores, dataset, config, executor=Interrupted(dataset))
    _, runs = runs_of(stores)
    assert [run.info.status for run in runs.values()].count("RUNNING") == 0
    assert runs[1].info.status == "KILLED"
    run_study(stores, dataset, config)
    check_ended(stores, 3)


def test_no_new_trial_after_the_timeout(stores, dataset):
    config = small_config(n_trials=3)
    run_study(stores, dataset, config, stop=stop_after(2))
    late = run_study(stores, dataset, dataclasses.replace(config, timeout_minutes=1e-9))
    assert late.ending == "timeout"
    assert late.counts == {"running": 1}
    _, runs = runs_of(stores)
    assert [run.info.status for run in runs.values()] == ["KILLED"]
    run_study(stores, dataset, config)
    check_ended(stores, 3)


def test_a_grid_ends_the_study(stores, dataset):
    small = dataclasses.replace(
        TINY, parameters={"hidden": IntRange(2, 8, grid=(2, 4, 8))}, first=None
    )
    config = small_config(n_trials=9, sampler="grid", max_epochs=1)
    result = run_study(stores, dataset, config, space=small)
    assert (result.ending, result.total) == ("exhausted", 3)
    assert sorted(trial.params["hidden"] for trial in check_ended(stores, 3)) == [2, 4, 8]


def test_only_the_best_models_are_kept(stores, dataset):
    config = small_config(n_trials=3, max_epochs=1, keep_models=1)
    result = run_study(stores, dataset, config)
    assert result.counts == {"complete": 3}
    result = run_study(stores, dataset, dataclasses.replace(config, n_trials=4))
    kept = [trial.number for trial in result.trials if "model" in files_of(stores, trial.run_id)]
    assert kept == [result.best.number]


def test_a_run_that_optuna_does_not_know_of_yet_finds_its_trial(stores, dataset):
    """Two kills: one just after a trial's run was made, one just after a trial was born."""
    config = small_config(n_trials=2)
    with open_study(stores, "demo", config, dataset.digest, TINY) as study:
        tracker = StudyTracker.open(stores, "demo", {})
        study.history.note("parent_run_id", tracker.parent_run_id)
        study.history.ask(make_sampler("tpe", TINY, 0), TINY, {})
        orphan = tracker.open_trial(0, TINY.first).run_id
        stray = tracker.open_trial(5, TINY.first).run_id
    assert run_study(stores, dataset, config).trials[0].run_id == orphan
    assert connect(stores).get_run(stray).info.status == "KILLED"
    connect(stores).delete_run(stray)
    check_ended(stores, 2)


def test_a_trial_that_kills_its_process_is_given_up(stores, dataset, monkeypatch):
    monkeypatch.setattr(books, "MAX_FRUITLESS_STARTS", 1)
    config = small_config(n_trials=2)

    class Deadly(Wrapped):
        def collect(self) -> list[Answer]:
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        # A process that is killed does not get to this.
        killed.setattr(coordinator.Coordinator, "_abandon", lambda self: None)
        with pytest.raises(KeyboardInterrupt):
            run_study(stores, dataset, config, executor=Deadly(dataset))
    run_study(stores, dataset, config)
    first = check_ended(stores, 2)[0]
    assert (first.state, first.reason) == ("failed", "crash")
    assert "died in each of 1 starts" in first.message


OUT_OF_MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import small_study
from qm9flow.data.store import open_dataset
from qm9flow.tuning.ranges import Choice
import dataclasses
stores, dataset = small_study.stores_at(Path(sys.argv[1])), open_dataset()
space = dataclasses.replace(
    small_study.TINY, parameters={"hidden": Choice((4, 512))}, first={"hidden": 4}
)
model = dataclasses.replace(space.recipe.model, edge_width=512)
space = small_study.with_recipe(space, model=model)
config = small_study.small_config(n_trials=1, max_epochs=1, sampler="grid")
small_study.run_study(stores, dataset, config, space=space)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, -1))
config = dataclasses.replace(config, n_trials=2)
result = small_study.run_study(stores, dataset, config, space=space)
print(result.trials[1].state, result.trials[1].reason, result.trials[1].params["hidden"])
"""


@pytest.mark.slow
def test_a_trial_that_does_not_fit_in_memory_fails_alone(stores: Stores):
    folder = stores.base.parent
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(folder), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "failed out_of_memory 512", done.stderr[-3000:]
    assert "memory ran out" in check_ended(stores_at(folder), 2)[1].message


def test_pruned_trials_have_their_last_score_in_optuna(undisturbed):
    stores, result = undisturbed
    study = optuna.load_study(study_name="demo", storage=stores.optuna_url)
    for trial, record in zip(study.trials, result.trials, strict=True):
        assert trial.value == record.score
        assert trial.params == record.params
    assert study.best_trial.number == result.best.number
