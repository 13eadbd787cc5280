"""Who trains: jobs in slots, pulled epoch by epoch. Here in this process; `remote` has Ray's.

A worker knows no store. It gets a job, trains one epoch when asked, hands over what the training
said, and waits. So a coordinator that looks at the events decides whether another epoch is trained
at all.
"""

import dataclasses
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import CheckpointError, Qm9FlowError
from qm9flow.training.events import CheckpointReady, EpochEnded, Event, Failed, Started
from qm9flow.training.fit import fit

TRAINING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    Qm9FlowError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a bug in a network raises: it costs its trial, never the study."""

TRIALS_PER_GPU = 4
"""Trials that share a GPU where nothing else was said. A network of this size leaves most of one
idle."""

NEVER = 100_000
"""Epochs between two checkpoints that only the last one ends."""

CHECKPOINT_SECONDS = 10.0
"""Of training between two checkpoints of a trial, at least. A checkpoint of megabytes after each
epoch of a second would cost more than what it may save."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialJob:
    """One trial's part of a job.

    Attributes:
        number: Of the trial.
        config: What to train.
        checkpoint: Where to go on, None to start anew.
        checkpoint_seconds: Between two checkpoints, at least; 0 gives one after every epoch.
    """

    number: int
    config: TrainConfig
    checkpoint: bytes | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS


@dataclass(frozen=True)
class Job:
    """What one slot trains.

    Attributes:
        trials: One, or several that are trained side by side.
    """

    trials: tuple[TrialJob, ...]


@dataclass(frozen=True)
class TrialEvent:
    """What a training said.

    Attributes:
        number: Of the trial.
        event: What it said.
    """

    number: int
    event: Event


@dataclass(frozen=True)
class Answer:
    """What an epoch brought.

    Attributes:
        slot: Where it was trained.
        events: Of all trials in the slot, in order. A worker that died answers with a `Failed`
            (`crash`) for each of its trials.
    """

    slot: int
    events: tuple[TrialEvent, ...]


class Executor(ABC):
    """Slots that train jobs.

    For each slot: `start`, then in turn `advance` and, when it has answered, `collect`, until all
    trials have ended or are closed. At most one epoch is in flight in a slot.

    Attributes:
        works_beside: Whether slots train while the coordinator does something else.
    """

    works_beside = False

    @abstractmethod
    def idle(self) -> tuple[int, ...]:
        """Slots that a job can be put into now.

        Returns:
            Their numbers, rising. A slot whose worker or machine was lost is not among them until
            another one stands in its place.
        """

    @abstractmethod
    def start(self, slot: int, job: Job) -> None:
        """Put a job into an empty slot. Nothing is trained yet.

        Args:
            slot: Which.
            job: What to train.
        """

    @abstractmethod
    def advance(self, slot: int) -> None:
        """Ask for one epoch of every trial in a slot; returns at once.

        Args:
            slot: Which.
        """

    @abstractmethod
    def collect(self) -> list[Answer]:
        """Wait until at least one slot that was asked has answered.

        Returns:
            The answers since the last call; none if no slot was asked, or none has answered for a
            moment, so that the caller can look at what else there is.

        Raises:
            StudyError: No worker can be started any more.
        """

    @abstractmethod
    def close(self, slot: int, number: int) -> None:
        """Take a trial out of a slot, trained to its end or not.

        Args:
            slot: Which.
            number: Of the trial; nothing happens if it is not there.
        """

    @abstractmethod
    def shut_down(self) -> None:
        """Drop all jobs and free what the slots hold."""


@dataclass(frozen=True)
class Placement:
    """What slots in other processes take.

    Attributes:
        slots: How many there are; None on a cluster: as many as it holds when the study starts.
        gpus: Share of a GPU of each; None on a cluster: shared out if it has any.
        threads: Threads inside torch's operations, and cores that are set aside for each.
        address: The cluster; None starts Ray on this machine, for this process alone.
    """

    slots: int | None
    gpus: float | None = 0.0
    threads: int = 1
    address: str | None = None


Stream = Generator[Event, None, None]


@dataclass
class _Training:
    """A trial in its slot.

    Attributes:
        job: What is trained.
        stream: What the training says, None before it is asked for anything.
        kept: When its last checkpoint was given, or it began.
        is_due: Whether the epoch that has just ended is followed by a checkpoint.
    """

    job: TrialJob
    stream: Stream | None = None
    kept: float = field(default_factory=time.monotonic)
    is_due: bool = False

    def epoch(self, dataset: Dataset) -> Iterator[Event]:
        """Train until the next event would cost another epoch, or never comes."""
        if self.stream is None:
            self.stream = _open(self.job, dataset, lambda: self.is_due)
        for event in self.stream:
            if isinstance(event, CheckpointReady):
                if not self.is_due:
                    continue  # of the last epoch, whose model comes next
                self.is_due, self.kept = False, time.monotonic()
            if isinstance(event, EpochEnded):
                self.is_due = time.monotonic() - self.kept >= self.job.checkpoint_seconds
            yield event
            if not self.is_due and not isinstance(event, Started):
                return


class InProcessExecutor(Executor):
    """One slot, in this process: an epoch is trained inside `collect`."""

    def __init__(self, dataset: Dataset) -> None:
        """Nothing is trained yet.

        Args:
            dataset: All molecules.
        """
        self._dataset = dataset
        self._trials: dict[int, _Training] = {}
        self._asked: deque[int] = deque()

    def idle(self) -> tuple[int, ...]:
        """The slot, if it is empty.

        Returns:
            0, or nothing.
        """
        return () if self._trials else (0,)

    def start(self, slot: int, job: Job) -> None:
        """Put a job into the slot.

        Args:
            slot: 0.
            job: What to train.
        """
        assert slot == 0, f"there is no slot {slot}"
        assert not self._trials, "the slot is not empty"
        self._trials = {item.number: _Training(item) for item in job.trials}

    def advance(self, slot: int) -> None:
        """Ask for an epoch.

        Args:
            slot: 0.
        """
        if slot not in self._asked:
            self._asked.append(slot)

    def collect(self) -> list[Answer]:
        """Train the epoch that was asked for.

        Returns:
            The answer.
        """
        if not self._asked:
            return []
        slot = self._asked.popleft()
        events = [
            TrialEvent(number, event)
            for number in list(self._trials)
            for event in self._epoch(number)
        ]
        return [Answer(slot, tuple(events))]

    def _epoch(self, number: int) -> list[Event]:
        events: list[Event] = []
        try:
            events.extend(self._trials[number].epoch(self._dataset))  # also what precedes a crash
        except TRAINING_ERRORS as error:
            log.error("the training of trial %d crashed", number, exc_info=error)
            events.append(Failed("crash", f"{type(error).__name__}: {error}"))
        return events

    def close(self, slot: int, number: int) -> None:
        """Take a trial out of the slot.

        Args:
            slot: 0.
            number: Of the trial.
        """
        training = self._trials.pop(number, None)
        if training is not None and training.stream is not None:
            training.stream.close()

    def shut_down(self) -> None:
        """Drop all trials."""
        for number in list(self._trials):
            self.close(0, number)
        self._asked.clear()


def _open(job: TrialJob, dataset: Dataset, wants_checkpoint: Callable[[], bool]) -> Stream:
    """A checkpoint that cannot be used costs time, not the trial."""
    config = dataclasses.replace(job.config, checkpoint_every=NEVER)
    try:
        return fit(config, dataset, checkpoint=job.checkpoint, wants_checkpoint=wants_checkpoint)
    except CheckpointError as error:
        log.warning("trial %d starts anew, its checkpoint cannot be used: %s", job.number, error)
        return fit(config, dataset, wants_checkpoint=wants_checkpoint)
