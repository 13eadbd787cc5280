"""The trainings of finals in all stores: begun, followed, ended, taken up again.

The order is that of trials: a run before the training starts; artifacts, metrics and the end of the
run before the result. So wherever a kill falls, the next start knows what is left to do.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from qm9flow import config
from qm9flow.config import TrainConfig
from qm9flow.files import replace_file
from qm9flow.tracking.study import StudyTracker
from qm9flow.tracking.training import TrainingTracker, TrialState
from qm9flow.training.events import CheckpointReady, Event, Failed, Finished
from qm9flow.tuning.executors import TrialJob
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import Final
from qm9flow.tuning.study import OpenStudy
from qm9flow.workflows.console import Stopped
from qm9flow.workflows.final_training import final_config, final_name
from qm9flow.workflows.trained import CHECKPOINT, EPOCHS, claim

FOLDER = "finals"
RESULT = "final.json"

PAUSE_SECONDS = 1.0
"""Between two looks whether a store is back."""

log = logging.getLogger(__name__)


class FinalsBooks:
    """Writes one round of finals to the study's folder and to MLflow.

    Attributes:
        ended: How trainings ended, by the trial's number.
    """

    def __init__(
        self, opened: OpenStudy, tracker: StudyTracker, minutes: float, stop: Callable[[], bool]
    ) -> None:
        """Nothing is written yet.

        Args:
            opened: The study; its lease is held.
            tracker: Its runs.
            minutes: Of each training.
            stop: Whether to give up waiting for a store.
        """
        self._opened = opened
        self._tracker = tracker
        self._minutes = minutes
        self._stop = stop
        self._candidates: dict[int, TrialRecord] = {}
        self._running: dict[int, TrainingTracker] = {}
        self._runs = tracker.find_finals()
        self.ended: dict[int, Final] = {}

    def job(self, candidate: TrialRecord) -> TrialJob | None:
        """What is left to train of a trial.

        Args:
            candidate: The trial.

        Returns:
            The training from its last checkpoint on; None if it has ended before.

        Raises:
            CheckpointError: Its folder is another training's, or cannot be used.
        """
        number = candidate.number
        self._candidates[number] = candidate
        folder, train = self._folder(number), self._train(number)
        claim(folder, train)
        path = folder / CHECKPOINT
        if (ended := _read(folder / RESULT)) is not None:
            self.ended[number] = ended
            path.unlink(missing_ok=True)  # a kill fell between the two
            return None
        blob = path.read_bytes() if path.exists() else None
        return TrialJob(number, train, blob, checkpoint_seconds=0.0)

    def begin(self, number: int) -> None:
        """Put a training on record; where MLflow's store is away, wait for it.

        Args:
            number: Of the trial; one whose worker was lost is on record already.

        Raises:
            Stopped: Somebody asked for it meanwhile.
        """
        is_refused = False
        while number not in self._running:
            tracker = self._open(number)
            if tracker.run_id or is_refused:
                self._running[number] = tracker
                return
            tracker.finish("interrupted")
            is_refused = self._tracker.is_reachable()  # unless it has come back this moment
            if not is_refused:
                self._wait()

    def take(self, number: int, event: Event) -> None:
        """Put on record what a training said.

        Args:
            number: Of the trial.
            event: What it said.

        Raises:
            Stopped: MLflow's store was away, and somebody asked for it meanwhile.
        """
        tracker = self._running[number]
        tracker.log(event)
        if isinstance(event, CheckpointReady):
            self._keep(number, event.blob)
        elif isinstance(event, Finished):
            tracker.save_model(event.weights, config.to_dict(self._train(number)))
            score = event.best_metrics["val/score"]
            self._end(Final(number, self._minutes, score, event.epochs, run_id=tracker.run_id))
        elif isinstance(event, Failed):
            reason, run_id = event.message, tracker.run_id
            self._end(Final(number, self._minutes, None, 0, reason, run_id))

    def close(self) -> None:
        """Leave what has not ended for the next start; nothing, if that has begun already."""
        if self._opened.lease.is_lost:
            return
        with ExitStack() as stack:  # one that fails leaves no other RUNNING
            for tracker in self._running.values():
                stack.callback(tracker.finish, "interrupted")

    def _folder(self, number: int) -> Path:
        return self._opened.state / FOLDER / final_name(number, self._minutes)

    def _train(self, number: int) -> TrainConfig:
        return final_config(self._opened, self._candidates[number], self._minutes)

    def _open(self, number: int) -> TrainingTracker:
        """Its run, that of an earlier start if there is one."""
        folder, study = self._folder(number), self._opened.config
        return self._tracker.open_final(
            number,
            folder / EPOCHS,
            self._candidates[number].params,
            {"preset": study.preset, "sampler": study.sampler, "minutes": f"{self._minutes:g}"},
            self._runs.get(folder.name),
            config=config.to_dict(self._train(number)),
        )

    def _keep(self, number: int, checkpoint: bytes) -> None:
        try:
            replace_file(self._folder(number) / CHECKPOINT, checkpoint)
        except OSError as error:
            log.warning("trial %d goes on without a new checkpoint: %s", number, error)

    def _end(self, final: Final) -> None:
        tracker = self._running[final.number]
        state: TrialState = "failed" if final.score is None else "complete"
        tracker.finish(state)
        while not tracker.is_kept:
            self._wait()
            tracker.finish_again(state)
        folder = self._folder(final.number)
        replace_file(folder / RESULT, json.dumps(dataclasses.asdict(final)).encode())
        (folder / CHECKPOINT).unlink(missing_ok=True)
        del self._running[final.number]
        self.ended[final.number] = final

    def _wait(self) -> None:
        """Until MLflow's store is back, and a moment."""
        while True:
            if self._stop():
                raise Stopped
            time.sleep(PAUSE_SECONDS)
            if self._tracker.is_reachable():
                return


def _read(path: Path) -> Final | None:
    """What a training came to; None if it has not ended, or that cannot be read."""
    try:
        return Final(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
