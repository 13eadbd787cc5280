"""The best trials trained further, on all molecules, before one of them is trained to the end.

Rounds of successive halving, each training with a limit of its own and an annealed rate, like the
final one. A folder a training holds its state, so that what was interrupted goes on.
"""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from qm9flow.config import TrainConfig
from qm9flow.data.splits import STANDARD_VALIDATION
from qm9flow.data.store import Dataset
from qm9flow.files import replace_file
from qm9flow.training.events import CheckpointReady, Event, Failed, Finished
from qm9flow.tuning import chosen
from qm9flow.tuning.executors import Placement, TrialJob
from qm9flow.tuning.finalists import pick, rounds
from qm9flow.tuning.placing import open_executor
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import Final, Selection, best_final, fastest_tied
from qm9flow.tuning.side_by_side import SideBySide
from qm9flow.tuning.spaces import to_train_config
from qm9flow.tuning.study import OpenStudy
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.trained import CHECKPOINT, claim

FINAL_EPOCHS = 300
"""Passes of a final training, at most; its minutes end most of them long before."""

FOLDER = "finals"
RESULT = "final.json"


def final_config(opened: OpenStudy, candidate: TrialRecord, minutes: float) -> TrainConfig:
    """A trial's training on all molecules, with an annealed rate.

    Gradients do not end it. It is one training, whose time is granted; its best epoch is what is
    released, whatever comes after; and a verdict that was wrong would cost the whole study.

    Args:
        opened: The study.
        candidate: The trial.
        minutes: Of training, at most.

    Returns:
        The training's configuration.
    """
    trial = to_train_config(candidate.params, opened.config, candidate.number, opened.space)
    return dataclasses.replace(
        trial,
        train_size=None,
        val_size=STANDARD_VALIDATION,
        schedule="cosine",
        max_epochs=FINAL_EPOCHS,
        growth=0,
        max_minutes=minutes,
        gradient_stop="observe",
    )


def label(number: int, minutes: float) -> str:
    """Folder and name of a final training: the same trial with another budget is another one.

    Args:
        number: Of the trial.
        minutes: Of training.

    Returns:
        A name without dots.
    """
    return f"trial-{number:05d}-{f'{minutes:g}'.replace('.', '_')}-minutes"


class Finals:
    """The rounds of a study, and where they are trained."""

    def __init__(
        self, opened: OpenStudy, dataset: Dataset, placement: Placement | None, console: Console
    ) -> None:
        """Train nothing yet.

        Args:
            opened: The study; its option `finalists` says how many take part.
            dataset: QM9.
            placement: Where trainings run.
            console: Lines, progress, the wish to stop.
        """
        self._opened = opened
        self._dataset = dataset
        self._placement = placement
        self._console = console

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
        study = self._opened.config
        taking_part = pick(records, self._opened.space, study.finalists)
        found: list[Final] = []
        for size, minutes in rounds(len(taking_part), study.final_minutes):
            ended = self._round(taking_part[:size], minutes)
            found += ended
            taking_part = tuple(records[item.number] for item in _by_score(ended))
            if len(taking_part) < 2:
                break
        if not (found or selection.finals):
            return selection
        winner = best_final(found)
        number = fastest_tied(selection) if winner is None else winner.number
        again = dataclasses.replace(selection, candidate=records[number], finals=tuple(found))
        if again != selection:
            chosen.keep(self._opened.history, again, records)
        return again

    def _round(self, taking_part: Sequence[TrialRecord], minutes: float) -> list[Final]:
        many = len(taking_part)
        state = _Round(self._opened.state / FOLDER, minutes, self._console, many)
        jobs = [
            job
            for item in taking_part
            if (job := state.job(item.number, final_config(self._opened, item, minutes)))
        ]
        done = f", {len(state.ended)} of them before" if state.ended else ""
        self._console.say(f"finals: {many} trials on the whole split, {minutes:g} min each{done}")
        if jobs:
            executor = open_executor(self._placement, self._dataset)
            try:
                if not SideBySide(jobs, executor, state.take).run(self._console.stop):
                    raise Stopped
            finally:
                executor.shut_down()
        return [state.ended[item.number] for item in taking_part]


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


class _Round:
    """Trainings of one round and their files."""

    def __init__(self, folder: Path, minutes: float, console: Console, total: int) -> None:
        self._folder = folder
        self._minutes = minutes
        self._console = console
        self._total = total
        self.ended: dict[int, Final] = {}

    def job(self, number: int, train: TrainConfig) -> TrialJob | None:
        """What is left to train; None if it has ended before."""
        folder = self._place(number)
        claim(folder, train)
        if (ended := _read(folder / RESULT)) is not None:
            self.ended[number] = ended
            return None
        path = folder / CHECKPOINT
        blob = path.read_bytes() if path.exists() else None
        return TrialJob(number, train, blob, checkpoint_seconds=0.0)

    def take(self, number: int, event: Event) -> None:
        """Keep what a training says."""
        folder = self._place(number)
        if isinstance(event, CheckpointReady):
            replace_file(folder / CHECKPOINT, event.blob)
        elif isinstance(event, Finished | Failed):
            score = event.best_metrics["val/score"] if isinstance(event, Finished) else None
            epochs = event.epochs if isinstance(event, Finished) else 0
            reason = event.message if isinstance(event, Failed) else None
            final = Final(number, self._minutes, score, epochs, reason)
            replace_file(folder / RESULT, json.dumps(dataclasses.asdict(final)).encode())
            (folder / CHECKPOINT).unlink(missing_ok=True)
            self._end(number, final)

    def _place(self, number: int) -> Path:
        return self._folder / label(number, self._minutes)

    def _end(self, number: int, final: Final) -> None:
        self.ended[number] = final
        said = final.reason or f"validation score {final.score:.4f} after epoch {final.epochs}"
        self._console.say(f"  trial {number}: {said}")
        self._console.progress("finals", len(self.ended), self._total)
