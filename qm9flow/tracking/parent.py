"""The run of a study, or of a training by itself: its figures, tables, files and end."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Metric, Run, RunTag
from mlflow.utils.mlflow_tags import (
    MLFLOW_LOGGED_ARTIFACTS,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from qm9flow.tracking import provenance, tables
from qm9flow.tracking.calls import StoreCalls
from qm9flow.tracking.describe import common_tags, dataset_input, parameters_of
from qm9flow.tracking.places import Place
from qm9flow.tracking.runs import CONFIG_FILE, TAG_LENGTH, TAG_STATE
from qm9flow.tracking.training import FLUSH_SECONDS

StudyStatus = Literal["FINISHED", "FAILED", "KILLED"]


class ParentRun:
    """Writes the run of a study or a training.

    A store's trouble is retried, reported and counted; nothing here raises for its sake.

    Attributes:
        parent_run_id: The run.
        place: The study, and where it keeps its files.
        experiment_id: MLflow's experiment of all its runs.
    """

    def __init__(
        self,
        client: MlflowClient,
        place: Place,
        parent: Run,
        patience_seconds: float = 30.0,
    ) -> None:
        """Use `StudyTracker.open`, which also makes the run.

        Args:
            client: From `connect`.
            place: The study.
            parent: Its run.
            patience_seconds: How long a failing call to a store is repeated.
        """
        self.parent_run_id = str(parent.info.run_id)
        self.experiment_id = str(parent.info.experiment_id)
        self.place = place
        self._client = client
        self._calls = StoreCalls(patience_seconds)
        self._tags = common_tags(place)
        self._dataset: list[DatasetInput] = []
        self._tables: dict[str, dict[str, str]] = {}
        self._pending: list[Metric] = []
        self._last_flush = time.monotonic()
        self._is_finished = False

    @property
    def seconds_spent(self) -> float:
        """Wall time spent in here and in the trackers of the trials."""
        return self._calls.seconds_spent

    @property
    def errors(self) -> int:
        """Calls to stores that were given up."""
        return self._calls.errors

    def is_reachable(self) -> bool:
        """Whether MLflow's store answers; after a call was given up, it is asked once more.

        Returns:
            False while it is away.
        """
        if not self._calls.is_away:
            return True
        with self._calls.timed():
            run = self._calls.fetch(
                "reach the study's run", lambda: self._client.get_run(self.parent_run_id)
            )
        return run is not None

    def _describe(self, config: Mapping[str, Any], is_project: bool) -> None:
        tags = dict(self._tags)
        if is_project:  # what `mlflow run` wrote about the source says more
            for name in (MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER):
                tags.pop(name)
        tags |= {f"version.{k}": v for k, v in provenance.versions().items()}
        tags |= {f"hardware.{k}": v for k, v in provenance.hardware().items()}
        self.set_tags(tags)
        parameters = parameters_of({"cfg": config})
        self._calls.attempt(
            "log the configuration",
            lambda: self._client.log_batch(self.parent_run_id, params=parameters),
        )
        self.log_text(json.dumps(config, indent=1), CONFIG_FILE)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log study-level figures.

        Args:
            metrics: Names and values.
            step: What they are plotted over, e.g. the number of trials done.
        """
        with self._calls.timed():
            self._queue(metrics, step)
            self._flush()

    def log_progress(self, counts: Mapping[str, int], best_score: float | None) -> None:
        """Log how far the study is; sent every ten seconds and at the end.

        Args:
            counts: Trials by state (`complete`, `pruned`, `failed`, ...).
            best_score: Lowest `val/score` so far, None if no trial has one.
        """
        metrics = {f"study/{state}": float(count) for state, count in counts.items()}
        if best_score is not None:
            metrics["study/best_score"] = best_score
        with self._calls.timed():
            self._queue(metrics, sum(counts.values()))
            if time.monotonic() - self._last_flush >= FLUSH_SECONDS:
                self._flush()

    def _queue(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._pending += [Metric(name, float(value), now, step) for name, value in metrics.items()]

    def _flush(self) -> None:
        self._last_flush = time.monotonic()
        if self._calls.attempt(
            "log figures of the study",
            lambda: self._client.log_batch(self.parent_run_id, metrics=self._pending),
        ):
            self._pending = []

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of the study's run.

        Args:
            tags: Names and values; values are written as text.
        """
        entities = [RunTag(name, str(value)[:TAG_LENGTH]) for name, value in tags.items()]
        with self._calls.timed():
            self._calls.attempt(
                "set tags of the study",
                lambda: self._client.log_batch(self.parent_run_id, tags=entities),
            )

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Store a file with the study's run.

        Args:
            path: The file, or a folder with all it holds.
            folder: Where to put it inside the run; none means at the top.
        """
        with self._calls.timed():
            self._calls.attempt(
                f"store {path.name}",
                lambda: self._client.log_artifact(self.parent_run_id, str(path), folder),
            )

    def log_text(self, text: str, name: str) -> None:
        """Store a text with the study's run.

        Args:
            text: The content.
            name: The file's path inside the run.
        """
        with self._calls.timed():
            self._calls.attempt(
                f"store {name}", lambda: self._client.log_text(self.parent_run_id, text, name)
            )

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Store a table three times: for MLflow's table view, for spreadsheets, for people.

        Args:
            rows: All with the same keys, which become the columns.
            name: `<name>.json`, `<name>.csv` and `<name>.md` are written, over older ones.
        """
        with self._calls.timed(), tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{name}.json").write_text(tables.to_mlflow(rows))
            (Path(folder) / f"{name}.csv").write_text(tables.to_csv(rows))
            (Path(folder) / f"{name}.md").write_text(tables.to_markdown(rows))
            self._calls.attempt(
                f"store the table {name}",
                lambda: self._client.log_artifacts(self.parent_run_id, folder),
            )
            self._tables[name] = {"path": f"{name}.json", "type": "table"}
            self.set_tags({MLFLOW_LOGGED_ARTIFACTS: json.dumps(list(self._tables.values()))})

    def log_dataset(
        self,
        *,
        digest: str,
        molecules: int,
        split: str,
        split_digest: str,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Log QM9 as the dataset of the study and of all trials opened after this.

        Args:
            digest: Of the data's content.
            molecules: How many there are.
            split: Name of the split.
            split_digest: Its hash.
            sizes: Molecules used for each purpose (`train`, `validation`).
        """
        self._dataset = [
            dataset_input(
                digest=digest,
                molecules=molecules,
                split=split,
                split_digest=split_digest,
                sizes=sizes or {},
            )
        ]
        with self._calls.timed():
            self._calls.attempt(
                "log the data",
                lambda: self._client.log_inputs(self.parent_run_id, self._dataset),
            )
        self.set_tags({"data_digest": digest, "split": split, "split_digest": split_digest})

    def finish(self, status: StudyStatus) -> None:
        """End the study's run. A second call does nothing.

        Args:
            status: MLflow's word for how it ended.
        """
        if self._is_finished:
            return
        self._is_finished = True
        state = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "interrupted"}[status]
        with self._calls.timed():
            if self._pending:
                self._flush()
            self.set_tags({TAG_STATE: state, "tracking_errors": self.errors})
            self._calls.attempt(
                "end the study's run",
                lambda: self._client.set_terminated(self.parent_run_id, status),
            )
