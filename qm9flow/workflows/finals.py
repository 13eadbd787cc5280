"""The best trials trained further, on all molecules, before one of them is trained to the end.

Rounds of successive halving, each training with a limit of its own and an annealed rate, like the
final one. A training has a folder for its state, so that what was interrupted goes on, and a nested
run, as a trial has.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from qm9flow.data.store import Dataset
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import Event
from qm9flow.tuning import chosen
from qm9flow.tuning.executors import Executor, Placement
from qm9flow.tuning.finalists import pick, rounds
from qm9flow.tuning.placing import open_executor
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import Final, Selection, best_final, fastest_tied
from qm9flow.tuning.side_by_side import SideBySide
from qm9flow.tuning.study import OpenStudy
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.finals_books import FinalsBooks


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
            StudyBusyError: Another process has taken over.
            StudyError: No worker can be started, or the storage does not answer.
            CheckpointError: A training's folder is another one's, or cannot be used.
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
        books = FinalsBooks(self._opened, self._tracker, minutes, self._is_to_stop)
        jobs = [job for item in taking_part if (job := books.job(item))]
        before = f", {many - len(jobs)} of them before" if len(jobs) < many else ""
        self._console.say(f"finals: {many} trials on the whole split, {minutes:g} min each{before}")

        def take(number: int, event: Event) -> None:
            books.take(number, event)
            if (final := books.ended.get(number)) is not None:
                self._say(final)
                self._console.progress("finals", len(books.ended), many)

        try:
            if jobs:
                work = SideBySide(jobs, self._workers(), take, on_begin=books.begin)
                if not work.run(self._is_to_stop):
                    self._opened.lease.check()
                    raise Stopped
        finally:
            books.close()
        return [books.ended[item.number] for item in taking_part]

    def _workers(self) -> Executor:
        if self._executor is None:
            self._executor = open_executor(self._placement, self._dataset)
        return self._executor

    def _is_to_stop(self) -> bool:
        return self._opened.lease.is_lost or self._console.stop()

    def _say(self, final: Final) -> None:
        said = final.reason or f"validation score {final.score:.4f} after epoch {final.epochs}"
        self._console.say(f"  trial {final.number}: {said}")


def _by_score(finals: Iterable[Final]) -> list[Final]:
    return sorted(
        (item for item in finals if item.score is not None), key=lambda item: item.score or 0.0
    )
