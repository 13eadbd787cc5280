"""Trainings that are no trials, side by side in a study's slots, each to its end."""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterable

from qm9flow.training.events import CheckpointReady, Event, Failed, Finished
from qm9flow.tuning.books import MAX_RETRIES
from qm9flow.tuning.executors import Answer, Executor, Job, TrialJob

LOST = ("crash", "out_of_memory")
"""Reasons that may go away with another try: the worker died."""


def _unwatched(number: int) -> None:
    """A beginning that nobody follows."""


class SideBySide:
    """Some trainings, and how far they are."""

    def __init__(
        self,
        jobs: Iterable[TrialJob],
        executor: Executor,
        on_event: Callable[[int, Event], None],
        *,
        on_begin: Callable[[int], None] = _unwatched,
    ) -> None:
        """Start nothing yet.

        Args:
            jobs: What to train.
            executor: Who trains; the caller shuts it down.
            on_event: Told a training's number and what it said. It keeps checkpoints, if they are
                to outlive this process.
            on_begin: Told a training's number before a worker gets it, each time.
        """
        self._waiting = deque(jobs)
        self._executor = executor
        self._on_event = on_event
        self._on_begin = on_begin
        self._running: dict[int, TrialJob] = {}
        self._tries = Counter[int]()

    def run(self, stop: Callable[[], bool]) -> bool:
        """Train until all have ended.

        A training whose worker dies goes on from its last checkpoint, twice at most.

        Args:
            stop: Whether to end after the epochs in flight.

        Returns:
            Whether all have ended; False if it was stopped.

        Raises:
            StudyError: No worker can be started any more.
        """
        while self._running or (self._waiting and not stop()):
            if not stop():
                self._fill()
            for answer in self._executor.collect():
                self._take(answer, stop)
        return not self._waiting

    def _fill(self) -> None:
        for slot in self._executor.idle():
            if not self._waiting:
                return
            self._on_begin(self._waiting[0].number)
            job = self._running[slot] = self._waiting.popleft()
            self._executor.start(slot, Job((job,)))
            self._executor.advance(slot)

    def _take(self, answer: Answer, stop: Callable[[], bool]) -> None:
        job = self._running[answer.slot]
        ending: Event | None = None
        for item in answer.events:
            if isinstance(item.event, CheckpointReady):
                job = dataclasses.replace(job, checkpoint=item.event.blob)
            if isinstance(item.event, Finished | Failed):
                ending = item.event
            if not self._is_lost(job, item.event):
                self._on_event(job.number, item.event)
        self._running[answer.slot] = job
        if ending is None and not stop():
            self._executor.advance(answer.slot)
            return
        self._executor.close(answer.slot, job.number)
        del self._running[answer.slot]
        if ending is None:
            self._waiting.append(job)
        elif self._is_lost(job, ending):
            self._tries[job.number] += 1
            self._waiting.append(job)

    def _is_lost(self, job: TrialJob, event: Event) -> bool:
        """Whether the training is to be tried again."""
        is_lost = isinstance(event, Failed) and event.reason in LOST
        return is_lost and self._tries[job.number] < MAX_RETRIES
