"""The one process that runs a study: asks, hands out trials, follows them, tells."""

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from optuna.trial import TrialState

from qm9flow.errors import StudyError
from qm9flow.tracking.study import StudyTracker
from qm9flow.tuning.books import MAX_RETRIES, Books, Outcome, RunningTrial
from qm9flow.tuning.executors import CHECKPOINT_SECONDS, Answer, Executor, Job, TrialJob
from qm9flow.tuning.records import (
    NOTE_DROPPED,
    NOTE_PARENT,
    TrialRecord,
    best_of,
    to_record,
)
from qm9flow.tuning.retention import displaced
from qm9flow.tuning.study import OpenStudy

PAUSE_SECONDS = 0.5
"""Between two looks whether workers or MLflow's store are there."""

PROGRESS_SECONDS = 10.0
"""Between two notes of the study's progress in its run."""

StudyEnding = Literal["complete", "interrupted", "timeout", "exhausted"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StudyResult:
    """What a start of a study came to.

    Attributes:
        name: Of the study.
        trials: All trials of all starts, by number.
        parent_run_id: MLflow's run of this start.
        ending: `complete`: all trials are done; `exhausted`: the grid has no more points;
            `timeout` or `interrupted`: it can be continued.
        total: Trials that it is to have.
        seconds: Wall time of this start.
    """

    name: str
    trials: tuple[TrialRecord, ...]
    parent_run_id: str
    ending: StudyEnding
    total: int
    seconds: float

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the lowest score, None if none has completed."""
        return best_of(self.trials)

    @property
    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return dict(Counter[str](trial.state for trial in self.trials))


def _never() -> bool:
    return False


def _silent(what: str, done: int, total: int) -> None:
    pass


class Coordinator:
    """Runs a study until it has its trials, or is asked to stop."""

    def __init__(
        self,
        study: OpenStudy,
        tracker: StudyTracker,
        executor: Executor,
        *,
        stop: Callable[[], bool] = _never,
        progress: Progress = _silent,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        """Nothing is started yet.

        Args:
            study: The study; its lease is held.
            tracker: Its runs; ended by whoever opened it.
            executor: Who trains.
            stop: Whether to end after the epochs in flight. Whoever sets it handles the signals.
            progress: Told after each trial how many have ended, of how many.
            checkpoint_seconds: Between two checkpoints of a trial, at least.
        """
        self._study = study
        self._tracker = tracker
        self._executor = executor
        self._stop = stop
        self._progress = progress
        self._checkpoint_seconds = checkpoint_seconds
        self._books = Books(study, tracker)
        self._total = study.sampler.limit(study.config.n_trials)
        self._pending: deque[int] = deque()
        self._again: deque[RunningTrial] = deque()
        self._ready: deque[RunningTrial] = deque()
        self._ended: list[tuple[RunningTrial, Outcome]] = []
        self._owed: list[tuple[RunningTrial, Outcome]] = []
        self._known: list[TrialRecord] = []
        self._dropped: set[int] = set()
        self._refused: set[int] = set()
        self._running: dict[int, dict[int, RunningTrial]] = {}
        self._deadline = float("inf")
        self._noted_at = float("-inf")
        self._has_turned_down = False

    def run(self) -> StudyResult:
        """Run the study.

        Trials that an earlier start left are taken up first, where they were.

        Returns:
            What it came to.

        Raises:
            StudyBusyError: Another coordinator has taken over.
            StudyError: The study's storage does not answer.
        """
        started = time.monotonic()
        if self._study.config.timeout_minutes is not None:
            self._deadline = started + 60.0 * self._study.config.timeout_minutes
        self._study.history.note(NOTE_PARENT, self._tracker.parent_run_id)
        self._pending.extend(self._books.recover())
        self._dropped.update(self._study.history.attributes.get(NOTE_DROPPED, []))
        self._drop_models()
        try:
            self._note_progress()
            self._fill()
            while self._running or self._waits():
                answers = self._executor.collect()
                self._study.lease.check()
                for answer in answers:
                    self._take(answer)
                if self._executor.works_beside:
                    self._fill()  # before the books of those that ended: no slot waits for them
                self._settle_ended()
                self._pay()
                self._fill()
                self._prepare()
                if not answers and not self._running:
                    time.sleep(PAUSE_SECONDS)
        except BaseException:
            self._abandon()
            raise
        finally:
            self._executor.shut_down()
        for trial in (*self._again, *self._ready):
            self._books.interrupt(trial)
        for number in self._pending:
            self._books.set_aside(number)
        self._note_progress(at_once=True)
        return self._result(time.monotonic() - started)

    def _abandon(self) -> None:
        """Leave no run RUNNING behind an error or a second Ctrl-C, if stores still answer."""
        if self._study.lease.is_lost:
            return
        running = [trial for trials in self._running.values() for trial in trials.values()]
        ended = [trial for trial, _ in self._ended]
        for trial in (*running, *ended, *self._again, *self._ready):
            with contextlib.suppress(StudyError):
                self._books.interrupt(trial)

    def _result(self, seconds: float) -> StudyResult:
        study = self._study
        records = self._records()
        ending: StudyEnding = "complete"
        left = self._pending or self._again or self._ready
        if left or sum(item.has_ended for item in records) < self._total:
            ending = "interrupted" if self._has_turned_down else "timeout"
        elif self._total < study.config.n_trials:
            ending = "exhausted"
        return StudyResult(
            name=study.name,
            trials=records,
            parent_run_id=self._tracker.parent_run_id,
            ending=ending,
            total=self._total,
            seconds=seconds,
        )

    def _records(self) -> tuple[TrialRecord, ...]:
        """All trials; those that have ended are read once, as a long study has thousands."""
        known = self._known
        for trial in self._study.history.trials[len(known) :]:
            known.append(to_record(trial))
        for place, record in enumerate(known):
            if not record.has_ended:
                known[place] = to_record(self._study.history.trial(record.number))
        return tuple(known)

    def _is_stopping(self) -> bool:
        self._has_turned_down = self._has_turned_down or self._stop()
        return self._has_turned_down

    def _fill(self) -> None:
        """Put trials into all empty slots."""
        for slot in self._executor.idle():
            trial = self._next_trial()
            if trial is None:
                return
            self._running[slot] = {trial.number: trial}
            self._start(slot, trial)

    def _start(self, slot: int, trial: RunningTrial) -> None:
        job = TrialJob(trial.number, trial.config, trial.checkpoint, self._checkpoint_seconds)
        trial.checkpoint = None
        self._executor.start(slot, Job((job,)))
        self._executor.advance(slot)

    def _next_trial(self) -> RunningTrial | None:
        while not self._is_stopping() and time.monotonic() < self._deadline:
            if not self._tracker.is_reachable():
                return None  # a trial without a run would be lost to MLflow
            if at_hand := self._again or self._ready:
                return at_hand.popleft()
            if self._pending:
                trial = self._books.resume(self._pending.popleft())
                outcome = self._books.decided(trial)
                if outcome is not None:
                    self._settle(trial, outcome)
                elif self._has_run(trial):
                    return trial
            elif self._begun() < self._total:
                trial = self._books.begin()
                if self._has_run(trial):
                    return trial
            else:
                return None
        return None

    def _prepare(self) -> None:
        """Ask for a trial and put it on record while all slots train, for the first to be free.

        Where trials run one after another, the next one is asked for when the last one is told, so
        that a study draws the same points however often it is interrupted.
        """
        if self._executor.works_beside and self._running and not (self._ready or self._again):
            trial = self._next_trial()
            if trial is not None:
                self._ready.append(trial)

    def _has_run(self, trial: RunningTrial) -> bool:
        """Whether a trial can begin; one that MLflow could make no run for waits until it can.

        A store that answers is asked twice: it may have come back between the question and now.
        """
        number = trial.number
        if trial.tracker.run_id or number in self._refused:
            return True
        if self._tracker.is_reachable():
            self._refused.add(number)
        self._pending.append(number)
        return False

    def _waits(self) -> bool:
        """Whether something is left to do that only time makes possible.

        Workers that were lost, or are not ready yet, may come (back), and so may MLflow's store.
        """
        if self._is_stopping():
            return False
        is_left = self._again or self._ready or self._pending or self._begun() < self._total
        is_hindered = not self._executor.idle() or not self._tracker.is_reachable()
        return bool(self._owed or (is_left and is_hindered and time.monotonic() < self._deadline))

    def _pay(self) -> None:
        """Tell trials that ended while MLflow was away."""
        if self._owed and self._tracker.is_reachable():
            owed, self._owed = self._owed, []
            for trial, outcome in owed:
                self._settle(trial, outcome, again=True)

    def _begun(self) -> int:
        """Trials that count or will: ended ones, those in slots, those that wait for one."""
        states = [trial.state for trial in self._study.history.trials]
        return sum(state != TrialState.WAITING for state in states)

    def _take(self, answer: Answer) -> None:
        """Follow what a slot has trained, then let it go on, or not.

        Where it surely goes on it is told so first, and trains while the books are written.
        """
        trials = self._running[answer.slot]
        goes_on = not self._is_stopping() and not any(
            self._books.may_end(trials[item.number], item.event)
            for item in answer.events
            if item.number in trials
        )
        if goes_on:
            self._executor.advance(answer.slot)
        for item in answer.events:
            trial = trials.get(item.number)
            if trial is None:
                continue  # it has ended earlier in this answer
            outcome = self._books.take(trial, item.event)
            if outcome is None:
                continue
            self._executor.close(answer.slot, trial.number)
            del trials[trial.number]
            if outcome.may_be_retried and trial.retries < MAX_RETRIES:
                self._books.retry(trial)
                self._again.append(trial)
            else:
                self._ended.append((trial, outcome))
        if goes_on:
            return
        if trials and self._is_stopping():
            for trial in list(trials.values()):
                self._executor.close(answer.slot, trial.number)
                self._books.interrupt(trial)
            trials.clear()
        if trials:
            self._executor.advance(answer.slot)
        else:
            del self._running[answer.slot]

    def _settle_ended(self) -> None:
        while self._ended:
            self._settle(*self._ended.pop(0))

    def _settle(self, trial: RunningTrial, outcome: Outcome, again: bool = False) -> None:
        settle = self._books.settle_again if again else self._books.settle
        if not settle(trial, outcome):
            self._owed.append((trial, outcome))
            return
        if outcome.state == "complete":
            self._drop_models()
        self._note_progress()

    def _drop_models(self) -> None:
        """Delete models beyond the best `keep_models`; noted after, so that a kill loses none."""
        keep = self._study.config.keep_models
        if keep is None:
            return
        records = self._records()
        gone = displaced(records, keep, self._dropped)
        for number in gone:
            run_id = records[number].run_id
            if run_id:
                self._tracker.delete_model(run_id)
        if gone:
            self._dropped.update(gone)
            self._study.history.note(NOTE_DROPPED, sorted(self._dropped))

    def _note_progress(self, at_once: bool = False) -> None:
        records = self._records()
        self._progress("trials", sum(record.has_ended for record in records), self._total)
        if at_once or time.monotonic() - self._noted_at > PROGRESS_SECONDS:
            self._noted_at = time.monotonic()
            best = best_of(records)
            counts = Counter[str](record.state for record in records if record.has_ended)
            self._tracker.log_progress(counts, best.score if best else None)
