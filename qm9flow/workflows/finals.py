"""The best trials trained further, on all molecules, before one of them is trained to the end.

Rounds of successive halving, each training with a limit of its own and an annealed rate, like the
final one. A training has a folder for its state, so that what was interrupted goes on, and a nested
run, as a trial has.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from qm9flow import config
from qm9flow.config import TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.files import replace_file
from qm9flow.tracking.study import StudyTracker
from qm9flow.tracking.training import TrainingTracker, TrialState
from qm9flow.training.events import CheckpointReady, Event, Failed, Finished
from qm9flow.tuning import chosen
from qm9flow.tuning.executors import Executor, Placement, TrialJob
from qm9flow.tuning.finalists import pick, rounds
from qm9flow.tuning.placing import open_executor
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import Final, Selection, best_final, fastest_tied
from qm9flow.tuning.side_by_side import SideBySide
from qm9flow.tuning.study import OpenStudy
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.final_training import final_config, final_name
from qm9flow.workflows.trained import CHECKPOINT, EPOCHS, claim

FOLDER = "finals"
RESULT = "final.json"


class Finals:
    """The rounds of a study, and where they are trained."""

    def __init__(
        self,
        opened: OpenStudy,
        dataset: Dataset,
        placement: Placement | None,
        tracker: StudyTracker,
        console: Console,
    ) -> None:
        """Train nothing yet.

        Args:
            opened: The study; its option `finalists` says how many take part.
            dataset: QM9.
            placement: Where trainings run.
            tracker: Of the study.
            console: Lines, progress, the wish to stop.
        """
        self._opened = opened
        self._dataset = dataset
        self._placement = placement
        self._tracker = tracker
        self._console = console
        self._executor: Executor | None = None

    def hold(self, selection: Selection, records: tuple[TrialRecord, ...]) -> Selection:
        """Train the best trials further and choose again.

        Args:
            selection: What the trials' own scores chose.
            records: All trials.

        Returns:
            The choice, with how the finals ended, noted with the study. What was trained before is
            not trained again; with fewer than two finalists the trials' own scores choose.

        Raises:
            Stopped: Somebody asked for it; what is done is kept.
            StudyError: No worker can be started, or the storage does not answer.
        """
        try:
            found = self._rounds(records)
        finally:
            if self._executor is not None:
                self._executor.shut_down()
        if not (found or selection.finals):
            return selection
        winner = best_final(found)
        number = fastest_tied(selection) if winner is None else winner.number
        again = dataclasses.replace(selection, candidate=records[number], finals=found)
        if again != selection:
            chosen.keep(self._opened.history, again, records)
        return again

    def _rounds(self, records: tuple[TrialRecord, ...]) -> tuple[Final, ...]:
        study = self._opened.config
        taking_part = pick(records, self._opened.space, study.finalists)
        found: list[Final] = []
        for size, minutes in rounds(len(taking_part), study.final_minutes):
            ended = self._round(taking_part[:size], minutes)
            found += ended
            taking_part = tuple(records[item.number] for item in _by_score(ended))
            if len(taking_part) < 2:
                break
        return tuple(found)

    def _round(self, taking_part: Sequence[TrialRecord], minutes: float) -> list[Final]:
        many = len(taking_part)
        trainings = _Trainings(self._opened, self._tracker, minutes, self._console)
        jobs = [job for item in taking_part if (job := trainings.job(item))]
        before = f", {many - len(jobs)} of them before" if len(jobs) < many else ""
        self._console.say(f"finals: {many} trials on the whole split, {minutes:g} min each{before}")
        try:
            if jobs:
                if self._executor is None:
                    self._executor = open_executor(self._placement, self._dataset)
                work = SideBySide(jobs, self._executor, trainings.take)
                if not work.run(self._console.stop):
                    raise Stopped
        finally:
            trainings.close()
        return [trainings.ended[item.number] for item in taking_part]


def _read(path: Path) -> Final | None:
    """What a training came to; None if it has not ended, or that cannot be read."""
    try:
        return Final(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _by_score(finals: Iterable[Final]) -> list[Final]:
    return sorted(
        (item for item in finals if item.score is not None), key=lambda item: item.score or 0.0
    )


class _Trainings:
    """The trainings of one round: on disk, on record, and for people."""

    def __init__(
        self, opened: OpenStudy, tracker: StudyTracker, minutes: float, console: Console
    ) -> None:
        self._opened = opened
        self._tracker = tracker
        self._minutes = minutes
        self._console = console
        self._candidates: dict[int, TrialRecord] = {}
        self._open: dict[int, TrainingTracker] = {}
        self._runs = tracker.find_finals()
        self._unkept: list[tuple[TrainingTracker, TrialState]] = []
        self.ended: dict[int, Final] = {}

    def job(self, candidate: TrialRecord) -> TrialJob | None:
        """What is left to train; None if it has ended before."""
        number = candidate.number
        self._candidates[number] = candidate
        folder, train = self._folder(number), self._train(number)
        claim(folder, train)
        if (ended := _read(folder / RESULT)) is not None:
            self.ended[number] = ended
            return None
        path = folder / CHECKPOINT
        blob = path.read_bytes() if path.exists() else None
        return TrialJob(number, train, blob, checkpoint_seconds=0.0)

    def take(self, number: int, event: Event) -> None:
        """Keep what a training says."""
        tracker = self._open.get(number) or self._begin(number)
        if isinstance(event, CheckpointReady):
            replace_file(self._folder(number) / CHECKPOINT, event.blob)
            return
        tracker.log(event)
        if isinstance(event, Finished):
            tracker.save_model(event.weights, config.to_dict(self._train(number)))
            score = event.best_metrics["val/score"]
            self._end(Final(number, self._minutes, score, event.epochs, run_id=tracker.run_id))
        elif isinstance(event, Failed):
            reason, run_id = event.message, tracker.run_id
            self._end(Final(number, self._minutes, None, 0, reason, run_id))

    def close(self) -> None:
        """End the round: what is under way is interrupted; what MLflow missed is sent again."""
        for tracker in self._open.values():
            tracker.finish("interrupted")
        for tracker, state in self._unkept:
            tracker.finish_again(state)

    def _folder(self, number: int) -> Path:
        return self._opened.state / FOLDER / final_name(number, self._minutes)

    def _train(self, number: int) -> TrainConfig:
        return final_config(self._opened, self._candidates[number], self._minutes)

    def _begin(self, number: int) -> TrainingTracker:
        """Open its run; an older start's is gone on with."""
        folder, study = self._folder(number), self._opened.config
        tracker = self._tracker.open_final(
            number,
            folder / EPOCHS,
            self._candidates[number].params,
            {"preset": study.preset, "sampler": study.sampler, "minutes": f"{self._minutes:g}"},
            self._runs.get(folder.name),
            config=config.to_dict(self._train(number)),
        )
        self._open[number] = tracker
        return tracker

    def _end(self, final: Final) -> None:
        """Its run first, then its result: a kill between the two trains the last epoch again."""
        tracker = self._open.pop(final.number)
        state: TrialState = "failed" if final.score is None else "complete"
        tracker.finish(state)
        if not tracker.is_kept:
            self._unkept.append((tracker, state))
        folder = self._folder(final.number)
        replace_file(folder / RESULT, json.dumps(dataclasses.asdict(final)).encode())
        (folder / CHECKPOINT).unlink(missing_ok=True)
        self.ended[final.number] = final
        said = final.reason or f"validation score {final.score:.4f} after epoch {final.epochs}"
        self._console.say(f"  trial {final.number}: {said}")
        self._console.progress("finals", len(self.ended), len(self._candidates))
