"""One training on record while it runs: a trial's, one of a study's finals, or one by itself."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Run, RunTag

from qm9flow.tracking.calls import StoreCalls
from qm9flow.tracking.figures import write_heat_map
from qm9flow.tracking.runs import (
    GRADIENTS_FILE,
    HEAT_MAP_FILE,
    MODEL_FOLDER,
    TAG_LENGTH,
    TAG_STATE,
    artifacts_of,
    delete_artifacts,
    fetch_gradients,
)
from qm9flow.tracking.spool import EpochRecord, Spool, gradient_arrays
from qm9flow.tracking.tensorboard import TensorBoardFile
from qm9flow.training.events import (
    Alarm,
    EpochEnded,
    Event,
    Failed,
    Finished,
    Started,
    StopReason,
    Verdict,
)

logger = logging.getLogger(__name__)

TrialState = Literal["complete", "pruned", "failed", "interrupted"]

FLUSH_SECONDS = 10.0
"""Metrics wait no longer than this before they are sent (or one epoch, if that is longer)."""

METRICS_A_BATCH = 900
"""MLflow takes 1000 metrics and tags together."""

STATUS: dict[TrialState, str] = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
"""A trial's state as MLflow's status; a pruned trial did what it was to do."""

_COMPARED = ("val/score", "train/loss", "train/molecules_per_second")
"""Metrics whose best-epoch values go to TensorBoard too; MLflow has them all."""


def _tags(tags: Mapping[str, object]) -> list[RunTag]:
    return [RunTag(name, str(value)[:TAG_LENGTH]) for name, value in tags.items()]


@dataclass(frozen=True)
class TrainingPlace:
    """Where a training leaves its traces.

    Attributes:
        name: What people call it.
        spool: File of its epochs on local disk.
        tensorboard: Folder of its TensorBoard files.
        prefix: Of its metrics' names in MLflow.
        folder: Of its gradients inside the run; none means at the top.
        owns_run: Whether the run ends with it. The run of another start has to get all epochs
            once more, so that the epochs on disk outlive a run that is not owned.
    """

    name: str
    spool: Path
    tensorboard: Path
    prefix: str = ""
    folder: str | None = None
    owns_run: bool = True

    @property
    def unsent(self) -> Path:
        """Folder of a model that MLflow could not take."""
        return self.spool.with_suffix(".model")


class TrainingTracker:
    """Writes a training to MLflow and TensorBoard. Nothing here raises for a store's sake.

    Attributes:
        run_id: The run; empty if MLflow could not make one, then only TensorBoard is written.
        seconds_spent: Wall time spent in here.
        is_kept: False once `finish` met a store that was away. What did not reach it lies on disk;
            `finish_again` brings it there, or, in another process, opening and ending the run.
    """

    def __init__(
        self,
        client: MlflowClient,
        calls: StoreCalls,
        place: TrainingPlace,
        *,
        run: Run | None,
        parameters: Mapping[str, Any],
        is_new: bool,
        is_reopened: bool,
    ) -> None:
        """Start or go on; use `StudyTracker`'s `open_trial`, `open_final` or `open_training`.

        Args:
            client: From `connect`.
            calls: The study's way of calling stores.
            place: Where the traces go.
            run: Its run; None if MLflow could not make one.
            parameters: Hyperparameters for TensorBoard.
            is_new: Whether the training begins; what another one left in its place on this disk is
                removed.
            is_reopened: Whether the run was begun earlier, so that it may hold metrics.
        """
        self.run_id = "" if run is None else str(run.info.run_id)
        self._artifacts = None if run is None else artifacts_of(client, run)
        self.seconds_spent = 0.0
        self.is_kept = True
        self._client = client
        self._calls = calls
        self._place = place
        self._spool = Spool(place.spool)
        self._pending: list[list[Metric]] = []
        self._last_flush = time.monotonic()
        self._verdict: Verdict | None = None
        self._finished: Finished | None = None
        self._failed: Failed | None = None
        self._alarm: Alarm | None = None
        self._is_closed = False
        self._tensorboard: TensorBoardFile | None = None
        with self._timed():
            self._last_logged = self._read_last_logged() if is_reopened else 0
            if is_new:
                self._calls.attempt("tidy up", self._spool.discard, is_local=True)
                shutil.rmtree(place.unsent, ignore_errors=True)
                shutil.rmtree(place.tensorboard, ignore_errors=True)
            self._open_tensorboard(parameters, self._first_replayed())
            for record in self._spool.records:
                self._take(record)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        with self._calls.timed():
            try:
                yield
            finally:
                self.seconds_spent += time.perf_counter() - start

    def _read_last_logged(self) -> int:
        """The newest epoch that MLflow has; epochs are logged whole, so one metric tells."""
        history = self._calls.fetch(
            "read how far the run got",
            lambda: self._client.get_metric_history(self.run_id, f"{self._place.prefix}val/score"),
        )
        return max((metric.step for metric in history or []), default=0)

    def _first_replayed(self) -> int:
        """The first epoch that a further TensorBoard file writes (again, or for the first time)."""
        records = self._spool.records
        return records[0].event.epoch if records else self._last_logged + 1

    def _open_tensorboard(self, parameters: Mapping[str, Any], first_step: int) -> None:
        """Open a file; epochs of an earlier process are written again, as they may be lost."""

        def work() -> None:
            file = TensorBoardFile(self._place.tensorboard, first_step)
            file.add_parameters(parameters, self._place.name)
            for record in self._spool.records:
                file.add_epoch(record)
            self._tensorboard = file

        self._calls.attempt("open the TensorBoard file", work, is_local=True)

    def log(self, event: Event) -> None:
        """Take what the training says; metrics are sent every ten seconds.

        Epochs that an earlier process logged (a training resumed from an older checkpoint
        repeats them) are not logged again.

        Args:
            event: Any event of `qm9flow.training.fit`.
        """
        with self._timed():
            if isinstance(event, EpochEnded | Finished | Failed):
                self._alarm = event.alarm or self._alarm
            if isinstance(event, EpochEnded):
                self._log_epoch(event)
            elif isinstance(event, Started) and event.epoch == 0 and self._last_logged == 0:
                counts = {
                    "model/parameters": event.parameters,
                    "data/train_molecules": event.train_molecules,
                    "data/val_molecules": event.val_molecules,
                }
                self._queue(counts, int(time.time() * 1000), 0)
            elif isinstance(event, Finished):
                self._finished, self._verdict = event, event.verdict
            elif isinstance(event, Failed):
                self._failed = event
                if event.reason in get_args(StopReason):
                    self._verdict = cast(StopReason, event.reason)
                if event.gradients is not None:  # of the epoch that it failed in
                    failed = EpochEnded(self._spool.last_epoch + 1, {}, event.gradients, False)
                    self._log_epoch(failed)
            if time.monotonic() - self._last_flush >= FLUSH_SECONDS:
                self._flush()

    def _log_epoch(self, event: EpochEnded) -> None:
        record = EpochRecord(event, int(time.time() * 1000))
        if event.epoch > self._spool.last_epoch:
            self._calls.attempt(
                "keep the epoch on disk", lambda: self._spool.add(record), is_local=True
            )
            self._to_tensorboard(lambda file: file.add_epoch(record))
            self._take(record)

    def _take(self, record: EpochRecord) -> None:
        """Queue an epoch's metrics for MLflow, unless it has them."""
        event = record.event
        if event.gradients is not None:
            self._verdict = event.gradients.verdict
        if event.epoch > self._last_logged:
            self._queue(event.metrics, record.time_ms, event.epoch)

    def _queue(self, metrics: Mapping[str, float], time_ms: int, step: int) -> None:
        """Put metrics that belong together where the next sending finds them."""
        prefix = self._place.prefix
        self._pending.append(
            [Metric(f"{prefix}{name}", float(v), time_ms, step) for name, v in metrics.items()]
        )

    def _flush(self, closing_tags: Mapping[str, object] | None = None) -> bool:
        """Send what is queued; what the store does not take stays queued."""
        tags = _tags(closing_tags or {})
        self._last_flush = time.monotonic()
        self._to_tensorboard(lambda file: file.flush())
        if not self.run_id:
            return False
        while self._pending or tags:
            batch: list[Metric] = []
            taken = 0
            for group in self._pending:
                if batch and len(batch) + len(group) > METRICS_A_BATCH:
                    break
                batch += group
                taken += 1
            if not self._calls.attempt(
                f"log metrics of {self._place.name}",
                partial(self._client.log_batch, self.run_id, metrics=batch, tags=tags),
            ):
                return False
            del self._pending[:taken]
            tags = []
        return True

    def _to_tensorboard(self, write: Any) -> None:
        file = self._tensorboard
        if file is not None:
            self._calls.attempt("write the TensorBoard file", lambda: write(file), is_local=True)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of the run.

        Args:
            tags: Names and values; values are written as text.
        """
        if self.run_id:
            with self._timed():
                self._calls.attempt(
                    f"set tags of {self._place.name}",
                    lambda: self._client.log_batch(self.run_id, tags=_tags(tags)),
                )

    def save_model(self, weights: bytes, config: Mapping[str, Any]) -> None:
        """Keep the trial's network as an artifact, without pickle.

        Args:
            weights: safetensors bytes.
            config: The training's configuration, enough to build the network again.
        """
        with self._timed(), tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights.safetensors").write_bytes(weights)
            (Path(folder) / "config.json").write_text(json.dumps(config, indent=1))
            if not self._upload(folder, MODEL_FOLDER):
                self._calls.attempt(
                    "keep the model on disk",
                    lambda: shutil.copytree(folder, self._place.unsent, dirs_exist_ok=True),
                    is_local=True,
                )

    def delete_model(self) -> None:
        """Remove the network that `save_model` kept."""
        with self._timed():
            self._calls.attempt(
                f"delete the model of {self._place.name}",
                lambda: delete_artifacts(self._client, self.run_id, MODEL_FOLDER),
            )

    def log_heat_map(self) -> None:
        """Draw the gradients that the run holds, layer by epoch."""
        with self._timed():
            log_heat_map(self._client, self._calls, self.run_id, self._place.name)

    def _upload(self, folder: str, artifact_path: str | None = None) -> bool:
        store = self._artifacts
        return store is not None and self._calls.attempt(
            f"store files of {self._place.name}",
            lambda: store.log_artifacts(folder, artifact_path),
        )

    def finish(
        self, state: TrialState, reason: str | None = None, message: str | None = None
    ) -> None:
        """End the training: artifacts, metrics, the run if it is owned. A second call does nothing.

        Args:
            state: How the training ended; an `interrupted` one can be opened again.
            reason: Why, in a word; None takes the training's own reason, if it failed.
            message: The same in words; None takes the training's own.
        """
        if self._is_closed:
            return
        self._is_closed = True
        with self._timed():
            best_epoch, best = self._best()
            self._queue_best(state, best_epoch, best)
            self._send(state, reason, message)
            compared = {f"best/{name}": best[name] for name in _COMPARED if name in best}
            self._to_tensorboard(lambda file: file.add_result(state, compared, best_epoch))
            self._to_tensorboard(lambda file: file.close())
            self._tensorboard = None

    def finish_again(
        self, state: TrialState, reason: str | None = None, message: str | None = None
    ) -> None:
        """Try once more to bring to MLflow what it did not take; see `is_kept`.

        Args:
            state: As `finish` was given.
            reason: As `finish` was given.
            message: As `finish` was given.
        """
        with self._timed():
            self._send(state, reason, message)

    def _send(self, state: TrialState, reason: str | None, message: str | None) -> None:
        """The run is ended last, so that one that has ended holds everything."""
        unanswered = self._calls.unanswered
        kept = self._upload_gradients(state)
        kept = self._send_model() and kept
        kept = self._flush(self._closing_tags(state, reason, message)) and kept
        if self.run_id and self._place.owns_run:
            self._end_run(state, kept)
        # What the store refuses, as a run that was deleted by hand, no second try brings there.
        self.is_kept = self._calls.unanswered == unanswered

    def _end_run(self, state: TrialState, is_kept: bool) -> None:
        ended = self._calls.attempt(
            f"end {self._place.name}",
            lambda: self._client.set_terminated(self.run_id, STATUS[state]),
        )
        if is_kept and ended and state != "interrupted":
            self._calls.attempt("tidy up", self._spool.discard, is_local=True)

    def _send_model(self) -> bool:
        """Store a model that could not be stored when it was made."""
        unsent = self._place.unsent
        if not unsent.is_dir():
            return True
        if not self._upload(str(unsent), MODEL_FOLDER):
            return False
        shutil.rmtree(unsent, ignore_errors=True)
        return True

    def _best(self) -> tuple[int, dict[str, float]]:
        if self._finished is not None:
            return self._finished.best_epoch, self._finished.best_metrics
        for record in reversed(self._spool.records):
            if record.event.is_best:
                return record.event.epoch, record.event.metrics
        return 0, {}

    def _queue_best(self, state: TrialState, epoch: int, metrics: Mapping[str, float]) -> None:
        if not metrics or state == "interrupted":
            return
        best = {f"best/{name}": value for name, value in metrics.items()}
        self._queue({**best, "best_epoch": epoch}, int(time.time() * 1000), epoch)

    def _closing_tags(
        self, state: TrialState, reason: str | None, message: str | None
    ) -> dict[str, str]:
        tags: dict[str, str] = {"verdict": self._verdict or "unknown"}
        if self._place.owns_run:
            tags[TAG_STATE] = str(state)
        if self._failed is not None:
            tags |= {"reason": self._failed.reason, "message": self._failed.message}
        if self._finished is not None:
            tags["ending"] = self._finished.ending
        if self._alarm is not None:
            tags |= {"alarm": self._alarm.reason, "alarm_step": str(self._alarm.step)}
        if reason is not None:
            tags["reason"] = reason
        if message is not None:
            tags["message"] = message
        return tags

    def _upload_gradients(self, state: TrialState) -> bool:
        arrays, store = gradient_arrays(self._spool.records), self._artifacts
        if not arrays:
            return True
        if store is None:
            return False
        is_drawn = self._verdict not in (None, "healthy") and state != "interrupted"

        def work() -> None:
            with tempfile.TemporaryDirectory() as folder:
                with (Path(folder) / GRADIENTS_FILE).open("wb") as file:
                    np.savez_compressed(file, allow_pickle=False, **arrays)
                if is_drawn:
                    title = f"{self._place.name}: gradients, {self._verdict}"
                    write_heat_map(arrays, title, Path(folder) / HEAT_MAP_FILE)
                store.log_artifacts(folder, self._place.folder)

        return self._calls.attempt(f"store the gradients of {self._place.name}", work)


def log_heat_map(client: MlflowClient, calls: StoreCalls, run_id: str, name: str) -> bool:
    """Draw the gradients that a finished trial's run holds, and store the picture there.

    Args:
        client: From `connect`.
        calls: The study's way of calling stores.
        run_id: The trial's run.
        name: The trial, for the title.

    Returns:
        Whether the run has the picture now.
    """

    def work() -> None:
        arrays = fetch_gradients(client, run_id)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / HEAT_MAP_FILE
            write_heat_map(arrays, f"{name}: gradients", path)
            client.log_artifact(run_id, str(path))

    return calls.attempt(f"draw the gradients of {name}", work)
