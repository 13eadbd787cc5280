"""One trial in all stores: begun, followed, ended, taken up again, always in the same order.

Optuna is the truth. A trial's run is known there before training starts. When a trial ends, its
model is stored, then Optuna notes how it ended, then the run gets its last metrics and is ended,
then the trial is told. So wherever a kill falls, the next start knows what is left to do.
"""

import logging
import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from optuna.trial import TrialState

from qm9flow.config import TrainConfig, to_dict
from qm9flow.errors import TrackingError
from qm9flow.tracking.runs import TAG_KEY, TAG_KIND, TAG_TRIAL, search
from qm9flow.tracking.stores import connect, store_errors
from qm9flow.tracking.study import StudyTracker
from qm9flow.tracking.training import TrainingTracker
from qm9flow.tracking.training import TrialState as State
from qm9flow.training.events import (
    CheckpointReady,
    EpochEnded,
    Event,
    Failed,
    Finished,
    Started,
    StopReason,
)
from qm9flow.tuning import pruning
from qm9flow.tuning.checkpoints import CheckpointFolder, Tally
from qm9flow.tuning.records import (
    ATTRIBUTE_OUTCOME,
    ATTRIBUTE_RETRIES,
    ATTRIBUTE_RUN,
    ATTRIBUTE_STARTS,
)
from qm9flow.tuning.spaces import to_train_config
from qm9flow.tuning.study import OpenStudy

MAX_RETRIES = 2
"""How often a trial is trained again after a crash or when memory ran out."""

MAX_FRUITLESS_STARTS = 5
"""Starts of one trial, each ended by the death of this process, without a further epoch. A trial
that takes its process along must not do so for ever; one that is merely interrupted goes on."""

Ended = Literal["complete", "pruned", "failed"]

OPTUNA_STATES: dict[Ended, TrialState] = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}

RUN_STATES: dict[int, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.WAITING: "interrupted",
}

FAILURE_STATES: dict[str, Ended] = {
    "vanishing": "pruned",
    "dead_relu": "pruned",
    "exploding": "pruned",
    "dead": "pruned",
    "impossible": "failed",
    "out_of_memory": "failed",
    "crash": "failed",
}

RETRIED = ("crash", "out_of_memory")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: `complete`, `pruned` or `failed`.
        score: Lowest `val/score`, None if it has none.
        reason: Why it did not complete, in a word.
        message: The same in words.
        failure: What the training said, if it failed.
    """

    state: Ended
    score: float | None = None
    reason: str | None = None
    message: str | None = None
    failure: Failed | None = None

    @property
    def may_be_retried(self) -> bool:
        """Whether the same training might succeed another time."""
        return self.reason in RETRIED and self.failure is not None


@dataclass
class RunningTrial:
    """A trial in work.

    Attributes:
        number: Of the trial.
        config: What is trained.
        tracker: Its run.
        tally: What is known of it so far.
        checkpoint: Where it goes on, None if it starts anew.
        retries: How often it was trained again.
        clock: When its wall time was last added up.
    """

    number: int
    config: TrainConfig
    tracker: TrainingTracker
    tally: Tally
    checkpoint: bytes | None
    retries: int
    clock: float = field(default_factory=time.perf_counter)

    def count_time(self) -> None:
        """Add the wall time since the last call."""
        now = time.perf_counter()
        self.tally.seconds += now - self.clock
        self.clock = now


class Books:
    """Writes trials to Optuna, MLflow and the checkpoint folder."""

    def __init__(self, study: OpenStudy, tracker: StudyTracker) -> None:
        """Nothing is written yet.

        Args:
            study: The study; its lease is held.
            tracker: Its runs.
        """
        self._study = study
        self._history = study.history
        self._tracker = tracker
        self._checkpoints = CheckpointFolder(tracker.place.state / "checkpoints")
        self._rungs = pruning.rungs_of(study.config)

    def begin(self) -> RunningTrial:
        """Start the next trial.

        Returns:
            The trial, on record everywhere.

        Raises:
            StudyError: The study's storage does not answer.
        """
        study = self._study
        first = {"count": 1, "epoch": 0}
        number = self._history.ask(study.sampler, study.space, {ATTRIBUTE_STARTS: first})
        return self._open(number, None, Tally())

    def resume(self, number: int) -> RunningTrial:
        """Take up a trial that another start left.

        Args:
            number: Of the trial.

        Returns:
            The trial, under its own number and in its own run.

        Raises:
            StudyError: The study's storage does not answer.
        """
        trial = self._history.trial(number)
        told = max(trial.intermediate_values, default=0)
        starts = trial.user_attrs.get(ATTRIBUTE_STARTS, {"count": 0, "epoch": 0})
        count = 1 if told > starts["epoch"] else starts["count"] + 1
        self._history.annotate(number, ATTRIBUTE_STARTS, {"count": count, "epoch": told})
        return self._open(number, *self._checkpoints.load(number))

    def _open(self, number: int, checkpoint: bytes | None, tally: Tally) -> RunningTrial:
        study = self._study
        trial = self._history.trial(number)
        config = to_train_config(trial.params, study.config, number, study.space)
        known = trial.user_attrs.get(ATTRIBUTE_RUN) or None
        log.info("trial %d %s: %s", number, "goes on" if known else "begins", trial.params)
        tracker = self._tracker.open_trial(
            number,
            trial.params,
            {"preset": study.space.name, "sampler": study.config.sampler},
            known,
            config=to_dict(config),
        )
        if tracker.run_id != known:
            self._history.annotate(number, ATTRIBUTE_RUN, tracker.run_id)
        retries = trial.user_attrs.get(ATTRIBUTE_RETRIES, 0)
        return RunningTrial(number, config, tracker, tally, checkpoint, retries)

    def retry(self, trial: RunningTrial) -> None:
        """Note that a trial is trained again, from its newest checkpoint.

        Args:
            trial: The trial.

        Raises:
            StudyError: The study's storage does not answer.
        """
        trial.retries += 1
        self._history.annotate(trial.number, ATTRIBUTE_RETRIES, trial.retries)
        trial.checkpoint, _ = self._checkpoints.load(trial.number)

    def decided(self, trial: RunningTrial) -> Outcome | None:
        """What is clear about a resumed trial before it is trained on.

        Args:
            trial: The trial.

        Returns:
            How it ends, None if it goes on.
        """
        found = self._history.trial(trial.number)
        count = found.user_attrs[ATTRIBUTE_STARTS]["count"]
        if count > MAX_FRUITLESS_STARTS:
            message = f"the process died in each of {count - 1} starts without a further epoch"
            return Outcome("failed", self._score(trial.number), "crash", message)
        epoch = max(found.intermediate_values, default=0)
        if trial.tally.epochs > epoch:
            return None  # killed before Optuna heard of an epoch: it is trained and told again
        return self._halved(trial.number, epoch) if epoch else None

    def may_end(self, trial: RunningTrial, event: Event) -> bool:
        """Whether what a training said could end its trial, found without writing anything.

        Args:
            trial: The trial.
            event: What it said.

        Returns:
            False if `take` will surely let it go on.
        """
        if isinstance(event, Failed | Finished):
            return True
        if not isinstance(event, EpochEnded):
            return False
        score = event.metrics["val/score"]
        return not math.isfinite(score) or event.epoch in self._rungs

    def take(self, trial: RunningTrial, event: Event) -> Outcome | None:
        """Put on record what a training said.

        Args:
            trial: The trial.
            event: What it said.

        Returns:
            How the trial ends, None if it goes on.

        Raises:
            StudyError: The study's storage does not answer.
        """
        trial.count_time()
        if isinstance(event, Failed):  # logged when it is clear that the trial is not retried
            state = FAILURE_STATES[event.reason]
            score = self._score(trial.number)
            trial.tally.alarm = event.alarm or trial.tally.alarm
            return Outcome(state, score, event.reason, event.message, event)
        trial.tracker.log(event)
        if isinstance(event, Started):
            trial.tally.parameters = event.parameters
        elif isinstance(event, EpochEnded):
            return self._take_epoch(trial, event)
        elif isinstance(event, CheckpointReady):
            self._keep(trial, event.blob)
        elif isinstance(event, Finished):
            trial.tracker.save_model(event.weights, to_dict(trial.config))
            trial.tally.best_epoch, trial.tally.best = event.best_epoch, event.best_metrics
            trial.tally.verdict, trial.tally.alarm = event.verdict, event.alarm
            return Outcome("complete", event.best_metrics["val/score"])
        return None

    def _take_epoch(self, trial: RunningTrial, event: EpochEnded) -> Outcome | None:
        number, score = trial.number, event.metrics["val/score"]
        trial.tally.take(event)
        self._keep(trial, None)
        if not math.isfinite(score):
            message = f"val/score is {score} after epoch {event.epoch}"
            return Outcome("pruned", self._score(number), "dead", message)
        is_repeated = event.epoch in self._history.trial(number).intermediate_values
        self._history.report(number, event.epoch, score)
        return None if is_repeated else self._halved(number, event.epoch)

    def _halved(self, number: int, epoch: int) -> Outcome | None:
        if epoch not in self._rungs:
            return None
        told = {trial.number: trial.intermediate_values for trial in self._history.trials}
        if not pruning.stops(number, epoch, told, self._rungs):
            return None
        message = f"not in the best 1/{pruning.REDUCTION} of the trials that reached epoch {epoch}"
        return Outcome("pruned", self._score(number), "halving", message)

    def _score(self, number: int) -> float | None:
        return min(self._history.trial(number).intermediate_values.values(), default=None)

    def _keep(self, trial: RunningTrial, blob: bytes | None) -> None:
        """The tally goes to disk before Optuna hears of an epoch: a kill may fall between them."""
        try:
            if blob is None:
                self._checkpoints.save_tally(trial.number, trial.tally)
            else:
                self._checkpoints.save(trial.number, blob, trial.tally)
        except OSError as error:
            log.warning("trial %d goes on without a new checkpoint: %s", trial.number, error)

    def settle(self, trial: RunningTrial, outcome: Outcome) -> bool:
        """End a trial.

        Args:
            trial: The trial; if it completed, its model is stored already.
            outcome: How it ended.

        Returns:
            Whether it is told. While MLflow is away its end is noted and waits for `settle_again`,
            in this start or the next one.

        Raises:
            StudyError: The study's storage does not answer.
        """
        trial.count_time()
        log.info(
            "trial %d %s after %d epochs, score %s%s",
            trial.number,
            outcome.state,
            trial.tally.epochs,
            "none" if outcome.score is None else f"{outcome.score:.4f}",
            f": {outcome.message or outcome.reason}" if outcome.reason else "",
        )
        self._history.annotate(trial.number, ATTRIBUTE_OUTCOME, _note(trial, outcome))
        if outcome.failure is not None:
            trial.tracker.log(outcome.failure)
        trial.tracker.finish(outcome.state, outcome.reason, outcome.message)
        return self._tell_if_kept(trial, outcome)

    def settle_again(self, trial: RunningTrial, outcome: Outcome) -> bool:
        """Bring to MLflow what it did not take while it was away, and tell.

        Args:
            trial: The trial that `settle` could not tell.
            outcome: How it ended.

        Returns:
            Whether it is told now.

        Raises:
            StudyError: The study's storage does not answer.
        """
        trial.tracker.finish_again(outcome.state, outcome.reason, outcome.message)
        return self._tell_if_kept(trial, outcome)

    def _tell_if_kept(self, trial: RunningTrial, outcome: Outcome) -> bool:
        if not trial.tracker.is_kept:
            return False
        self._tell(trial.number, outcome.state, outcome.score)
        return True

    def _tell(self, number: int, state: Ended, score: float | None) -> None:
        self._history.tell(number, OPTUNA_STATES[state], score)
        self._checkpoints.delete(number)

    def interrupt(self, trial: RunningTrial) -> None:
        """Leave a trial as it is, for the next start.

        Args:
            trial: The trial.

        Raises:
            StudyError: The study's storage does not answer.
        """
        told = max(self._history.trial(trial.number).intermediate_values, default=0)
        self._history.annotate(trial.number, ATTRIBUTE_STARTS, {"count": 0, "epoch": told})
        trial.tracker.finish("interrupted")

    def set_aside(self, number: int) -> None:
        """Leave a trial of an earlier start for the next one.

        Args:
            number: Of the trial.
        """
        run_id = self._history.trial(number).user_attrs.get(ATTRIBUTE_RUN)
        if run_id:
            self._tracker.settle(run_id, "interrupted")

    def recover(self) -> list[int]:
        """Bring all stores into line after an earlier start.

        Trials whose end was noted are ended; runs that were left running are ended or taken up.

        Returns:
            Trials that are to be trained on.

        Raises:
            StudyError: The study's storage does not answer.
        """
        left = [trial for trial in self._history.trials if trial.state == TrialState.RUNNING]
        self._claim_runs({trial.number for trial in left})
        numbers = []
        for trial in left:
            outcome = trial.user_attrs.get(ATTRIBUTE_OUTCOME)
            if outcome is None:
                numbers.append(trial.number)
                continue
            run_id = trial.user_attrs.get(ATTRIBUTE_RUN)
            if run_id:
                self._tracker.settle(
                    run_id, outcome["state"], outcome["reason"], outcome.get("message")
                )
            self._tell(trial.number, outcome["state"], outcome["score"])
        self._checkpoints.keep_only(set(numbers))
        return numbers

    def _claim_runs(self, left: set[int]) -> None:
        """A run that was made just before a kill is not in Optuna yet: its trial gets it back."""
        try:
            runs = self._running_runs()
        except TrackingError as error:
            log.warning("runs of earlier starts may be left running: %s", error)
            return
        for run_id, number in runs:
            if number not in left:
                self._tracker.settle(run_id, self._run_state(number))
                continue
            known = self._history.trial(number).user_attrs.get(ATTRIBUTE_RUN)
            if not known:
                self._history.annotate(number, ATTRIBUTE_RUN, run_id)
            elif known != run_id:
                self._tracker.settle(run_id, "interrupted")

    def _run_state(self, number: int) -> State:
        """What a trial that is not running is in MLflow's eyes; one that Optuna has lost, too."""
        if not 0 <= number < len(self._history.trials):
            return "interrupted"
        return RUN_STATES[self._history.trial(number).state]

    def _running_runs(self) -> list[tuple[str, int]]:
        tracker = self._tracker
        place = tracker.place
        trials = f"tags.{TAG_KEY} = '{place.key}' and tags.{TAG_KIND} = 'trial'"
        wanted = f"{trials} and attributes.status = 'RUNNING'"
        with store_errors(f"look for running trials of study {place.name}"):
            runs = list(search(connect(self._study.stores), wanted))
        return [(run.info.run_id, int(run.data.tags.get(TAG_TRIAL, -1))) for run in runs]


def _note(trial: RunningTrial, outcome: Outcome) -> dict[str, Any]:
    """What Optuna keeps of an ended trial: plain values, no NaN."""
    tally = trial.tally
    values = {
        "state": outcome.state,
        "score": outcome.score,
        "reason": outcome.reason,
        "message": outcome.message,
        "best_epoch": tally.best_epoch or None,
        "epochs": tally.epochs,
        "train_loss": tally.best.get("train/loss"),
        "molecules_per_second": tally.best.get("train/molecules_per_second"),
        "seconds": round(tally.seconds, 3),
        "parameters": tally.parameters or None,
        "verdict": _verdict(trial, outcome),
        "alarm": tally.alarm.reason if tally.alarm else None,
        "alarm_step": tally.alarm.step if tally.alarm else None,
        "alarm_seconds": tally.alarm.seconds if tally.alarm else None,
    }
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }


def _verdict(trial: RunningTrial, outcome: Outcome) -> str:
    if outcome.reason in get_args(StopReason):
        return str(outcome.reason)
    return trial.tally.verdict
