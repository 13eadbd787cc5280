"""A study or a training by itself from its opening on, and the nested runs of its trainings."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from qm9flow.tracking.describe import flatten, parameters_of
from qm9flow.tracking.parent import ParentRun
from qm9flow.tracking.places import Kind, study_place, training_place
from qm9flow.tracking.resume import adopt, earlier_parents, end_orphans
from qm9flow.tracking.runs import (
    CONFIG_FILE,
    KIND_FINAL,
    MODEL_FOLDER,
    TAG_HOME,
    TAG_KEY,
    TAG_KIND,
    TAG_LENGTH,
    TAG_RESUMES,
    TAG_STATE,
    TAG_TRIAL,
    artifacts_of,
    delete_artifacts,
    search,
)
from qm9flow.tracking.stores import (
    STORE_ERRORS,
    Stores,
    connect,
    find_experiment,
    store_errors,
)
from qm9flow.tracking.training import TrainingPlace, TrainingTracker, TrialState, log_heat_map

_FINAL_NAME = "final-"
"""Goes before the name of a training in its run's."""


def run_name(number: int) -> str:
    """The name of a trial's run."""
    return f"trial-{number:05d}"


def _experiment(client: MlflowClient, stores: Stores, previous_parent: str | None) -> str:
    """Where the last start's run is, so that a study stays together; else by MLflow's rules."""
    if previous_parent:
        with contextlib.suppress(*STORE_ERRORS):  # deleted since, or by hand
            return str(client.get_run(previous_parent).info.experiment_id)
    return find_experiment(client, stores)


class StudyTracker(ParentRun):
    """Writes a study to its parent run and hands out the trackers of its trainings.

    A training by itself is written in the same way; it has no trials. Only opening raises; after
    that a store's trouble is retried, reported and counted.

    Attributes:
        parent_run_id: The study's run.
        place: The study, and where it keeps its files.
        experiment_id: MLflow's experiment of all its runs.
    """

    @classmethod
    def open(
        cls,
        stores: Stores,
        name: str,
        config: Mapping[str, Any],
        *,
        kind: Kind = "study",
        previous_parent: str | None = None,
        patience_seconds: float = 30.0,
    ) -> "StudyTracker":
        """Take the run that `mlflow run` made, or make one; on resume, take over the trials.

        Args:
            stores: The addresses.
            name: The study, or the training.
            config: Its resolved configuration; parameters `cfg.<name>` and `config.json`.
            kind: Which of the two.
            previous_parent: The parent run of an earlier start; its trials move to the new one
                and it is ended.
            patience_seconds: How long a failing call to a store is repeated.

        Returns:
            The tracker, its run RUNNING.

        Raises:
            TrackingError: The store cannot be reached, or the run it names is unknown.
        """
        client = connect(stores)
        place = study_place(stores, name) if kind == "study" else training_place(stores, name)
        # Popped, not read: a process started from here must not take the study's run for its own.
        own = os.environ.pop("MLFLOW_RUN_ID", None)
        tags = {place.kind: name, TAG_KEY: place.key, TAG_KIND: kind, TAG_STATE: "running"}
        tags[TAG_HOME] = place.home
        if previous_parent:
            tags[TAG_RESUMES] = previous_parent
        with store_errors(f"open the {kind}'s run {own or ''}".rstrip()):
            if own:
                client.update_run(own, status="RUNNING", name=name)
                client.log_batch(own, tags=[RunTag(name, value) for name, value in tags.items()])
                parent = client.get_run(own)
            else:
                experiment = _experiment(client, stores, previous_parent)
                parent = client.create_run(experiment, tags=tags, run_name=name)
        tracker = cls(client, place, parent, patience_seconds)
        with tracker._calls.timed():
            tracker._describe(config, is_project=bool(own))
            tracker._take_over(previous_parent)
        return tracker

    def _take_over(self, previous: str | None) -> None:
        """Move the trials of earlier starts here."""
        if previous and previous != self.parent_run_id:
            parents = self._calls.fetch(
                "find the earlier starts",
                lambda: earlier_parents(self._client, previous, self.parent_run_id),
            )
            for parent in parents or []:
                self._calls.attempt(
                    f"take over the trials of run {parent.info.run_id}",
                    partial(adopt, self._client, parent, self.parent_run_id),
                )
        self._calls.attempt(
            "end starts that were killed",
            lambda: end_orphans(self._client, self.place, self.parent_run_id),
        )

    def open_trial(
        self,
        number: int,
        parameters: Mapping[str, Any],
        tags: Mapping[str, object] | None = None,
        run_id: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> TrainingTracker:
        """Make a trial's nested run, or open it again.

        Args:
            number: The trial's number in the study.
            parameters: What was searched; logged as parameters, nested tables with dots.
            tags: More tags.
            run_id: The trial's run of an earlier start; a new one is made if it is gone.
            config: The training's whole configuration, kept as `config.json`.

        Returns:
            Its tracker; its `run_id` is empty if MLflow could not make a run.
        """
        place = self._trial_place(number)
        tags = {TAG_KIND: "trial", TAG_TRIAL: number, **(tags or {})}
        return self._open_nested(place, parameters, tags, run_id, config, is_new=run_id is None)

    def open_final(
        self,
        number: int,
        spool: Path,
        parameters: Mapping[str, Any],
        tags: Mapping[str, object] | None = None,
        run_id: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
    ) -> TrainingTracker:
        """Make the nested run of a trial that is trained further, or open it again.

        Args:
            number: The trial's number in the study.
            spool: File of the training's epochs, with those that an earlier start left there; its
                folder, which is this training's alone, names it.
            parameters: As of `open_trial`.
            tags: More tags.
            run_id: As of `open_trial`.
            config: As of `open_trial`.

        Returns:
            Its tracker; its `run_id` is empty if MLflow could not make a run.
        """
        name = spool.parent.name
        place = TrainingPlace(
            f"{_FINAL_NAME}{name}", spool, self.place.tensorboard / "finals" / name
        )
        tags = {TAG_KIND: KIND_FINAL, TAG_TRIAL: number, **(tags or {})}
        return self._open_nested(place, parameters, tags, run_id, config, is_new=False)

    def find_finals(self) -> dict[str, str]:
        """Runs of trials that earlier starts trained further.

        Returns:
            Run ids by the trainings' names (of their folders), the newest of each; empty while
            MLflow's store is away.
        """
        wanted = f"tags.{TAG_KEY} = '{self.place.key}' and tags.{TAG_KIND} = '{KIND_FINAL}'"
        with self._calls.timed():
            found = self._calls.fetch("find the finals", lambda: [*search(self._client, wanted)])
        runs = sorted(found or [], key=lambda run: run.info.start_time)
        return {run.info.run_name.removeprefix(_FINAL_NAME): run.info.run_id for run in runs}

    def _open_nested(
        self,
        place: TrainingPlace,
        parameters: Mapping[str, Any],
        tags: Mapping[str, object],
        run_id: str | None,
        config: Mapping[str, Any] | None,
        *,
        is_new: bool,
    ) -> TrainingTracker:
        start = time.perf_counter()
        with self._calls.timed():
            run = None if run_id is None else self._reopen(run_id, place.name)
            is_reopened = run is not None
            if run is None:
                run = self._calls.fetch(
                    f"make the run of {place.name}", lambda: self._create(place.name, tags)
                )
            if run is not None:  # an older run too: a kill may have left it empty
                self._fill(run, place.name, parameters, config)
            tracker = TrainingTracker(
                self._client,
                self._calls,
                place,
                run=run,
                parameters=flatten(parameters),
                is_new=is_new,
                is_reopened=is_reopened,
            )
        tracker.seconds_spent = time.perf_counter() - start
        return tracker

    def _trial_place(self, number: int) -> TrainingPlace:
        return TrainingPlace(
            name=run_name(number),
            spool=self.place.state / "epochs" / f"{number:05d}.jsonl",
            tensorboard=self.place.tensorboard / f"{number:05d}",
        )

    def open_training(
        self,
        parameters: Mapping[str, Any],
        spool: Path,
        *,
        name: str,
        folder: str | None = None,
    ) -> TrainingTracker:
        """Put a training on record in the study's own run: its final one, or the only one.

        Args:
            parameters: Hyperparameters for TensorBoard, nested tables allowed.
            spool: File of its epochs; those that an earlier start left there are logged.
            name: What people call it.
            folder: Goes before its metrics' names and holds its artifacts and TensorBoard files;
                none means at the top.

        Returns:
            Its tracker.
        """
        place = TrainingPlace(
            name=name,
            spool=spool,
            tensorboard=self.place.tensorboard / (folder or ""),
            prefix=f"{folder}/" if folder else "",
            folder=folder,
            owns_run=False,
        )
        with self._calls.timed():
            run = self._calls.fetch(
                f"look at the run of {name}", lambda: self._client.get_run(self.parent_run_id)
            )
            return TrainingTracker(
                self._client,
                self._calls,
                place,
                run=run,
                parameters=flatten(parameters),
                is_new=False,
                is_reopened=run is not None,
            )

    def _create(self, name: str, tags: Mapping[str, object]) -> Run:
        all_tags = self._tags | {
            MLFLOW_PARENT_RUN_ID: self.parent_run_id,
            MLFLOW_RUN_NAME: name,
            TAG_STATE: "running",
        }
        all_tags |= {key: str(value)[:TAG_LENGTH] for key, value in tags.items()}
        return self._client.create_run(self.experiment_id, tags=all_tags, run_name=name)

    def _fill(
        self,
        run: Run,
        name: str,
        parameters: Mapping[str, Any],
        config: Mapping[str, Any] | None,
    ) -> None:
        run_id, entities = run.info.run_id, parameters_of(parameters)
        self._calls.attempt(
            f"log the parameters of {name}",
            lambda: self._client.log_batch(run_id, params=entities),
        )
        if self._dataset:
            self._calls.attempt(
                f"log the data of {name}",
                lambda: self._client.log_inputs(run_id, self._dataset),
            )
        if config is not None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / CONFIG_FILE).write_text(json.dumps(config, indent=1))
                self._calls.attempt(
                    f"log the configuration of {name}",
                    lambda: artifacts_of(self._client, run).log_artifacts(folder),
                )

    def _reopen(self, run_id: str, name: str) -> Run | None:
        def work() -> Run:
            self._client.update_run(run_id, status="RUNNING")
            self._client.log_batch(
                run_id,
                tags=[
                    RunTag(TAG_STATE, "running"),
                    RunTag(MLFLOW_PARENT_RUN_ID, self.parent_run_id),
                ],
            )
            return self._client.get_run(run_id)

        return self._calls.fetch(f"open the run of {name} again", work)

    def log_heat_map(self, run_id: str, number: int) -> bool:
        """Draw a finished trial's gradients into its run.

        Args:
            run_id: The trial's run.
            number: The trial.

        Returns:
            Whether the run has the picture now.
        """
        with self._calls.timed():
            return log_heat_map(self._client, self._calls, run_id, run_name(number))

    def delete_model(self, run_id: str) -> None:
        """Remove a trial's network from its run.

        Args:
            run_id: The trial's run.
        """
        with self._calls.timed():
            self._calls.attempt(
                f"delete the model of run {run_id}",
                lambda: delete_artifacts(self._client, run_id, MODEL_FOLDER),
            )

    def settle(
        self,
        run_id: str,
        state: TrialState,
        reason: str | None = None,
        message: str | None = None,
    ) -> None:
        """End a trial's run that a killed process left RUNNING; epochs it kept are logged first.

        Args:
            run_id: The run; nothing happens if it has ended or is gone.
            state: How the trial ended.
            reason: Why, in a word.
            message: The same in words.
        """
        with self._calls.timed():
            run = self._calls.fetch(f"look at run {run_id}", lambda: self._client.get_run(run_id))
            if run is None or run.info.status != "RUNNING":
                return
            tracker = TrainingTracker(
                self._client,
                self._calls,
                self._trial_place(int(run.data.tags.get(TAG_TRIAL, 0))),
                run=run,
                parameters=run.data.params,
                is_new=False,
                is_reopened=True,
            )
            tracker.finish(state, reason, message)
