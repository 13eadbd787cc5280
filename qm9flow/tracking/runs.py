"""Reading and changing runs that are there already: children, artifacts, deletion."""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from qm9flow.errors import TrackingError
from qm9flow.tracking.places import Place, study_place
from qm9flow.tracking.stores import Stores, connect, store_errors

PAGE = 1000
"""Runs asked for at a time; MLflow returns no more than that without saying so."""

TAG_LENGTH = 8000
"""Characters that MLflow takes in a tag."""

TAG_KIND = "kind"
TAG_KEY = "key"
TAG_UNITS = "units"
TAG_TRIAL = "trial"
TAG_STATE = "state"
TAG_HOME = "home"
TAG_RESUMES = "resumes"
TAG_SUPERSEDED = "superseded_by"

KIND_FINAL = "final"
"""The kind of a run in which a trial is trained further."""

CONFIG_FILE = "config.json"
GRADIENTS_FILE = "gradients.npz"
HEAT_MAP_FILE = "gradients.png"
MODEL_FOLDER = "model"


def search(client: MlflowClient, filter_string: str) -> Iterator[Run]:
    """All runs that a filter finds, page by page.

    In all experiments: a study that is started again may find itself in another one.

    Args:
        client: From `connect`.
        filter_string: In MLflow's search syntax.

    Yields:
        Runs that were not deleted, of experiments that were not deleted.
    """
    experiments = _experiments(client)
    token = None
    while True:
        page = client.search_runs(
            experiments, filter_string=filter_string, max_results=PAGE, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _experiments(client: MlflowClient) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        page = client.search_experiments(max_results=PAGE, page_token=token)
        found += [str(experiment.experiment_id) for experiment in page]
        token = page.token
        if not token:
            return found


def find_children(client: MlflowClient, parent_run_id: str) -> list[Run]:
    """The nested runs of a run.

    Args:
        client: From `connect`.
        parent_run_id: The parent.

    Returns:
        All of them, however many.

    Raises:
        TrackingError: The parent is unknown or the store cannot be reached.
    """
    with store_errors(f"list the nested runs of {parent_run_id}"):
        return search_children(client, client.get_run(parent_run_id))


def search_children(client: MlflowClient, parent: Run) -> list[Run]:
    """The nested runs of a run; as `find_children`, with the store's own errors.

    Args:
        client: From `connect`.
        parent: The parent.

    Returns:
        All of them, however many.
    """
    tag = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'"
    return list(search(client, tag))


def find_runs(client: MlflowClient, place: Place) -> list[Run]:
    """All runs of a study, parents and trials, or of a training.

    Args:
        client: From `connect`.
        place: The study or training.

    Returns:
        All of its runs.

    Raises:
        TrackingError: The store cannot be reached.
    """
    with store_errors(f"list the runs of {place.kind} {place.name}"):
        return list(search(client, f"tags.{TAG_KEY} = '{place.key}'"))


def delete_study_runs(stores: Stores, study_name: str) -> int:
    """Delete a study's runs and TensorBoard files.

    Runs are deleted as MLflow does it: hidden, restorable, their artifacts on disk until
    `mlflow gc`. TensorBoard files are gone at once.

    Args:
        stores: The addresses.
        study_name: The study.

    Returns:
        How many runs were deleted.

    Raises:
        TrackingError: The store cannot be reached.
    """
    client = connect(stores)
    place = study_place(stores, study_name)
    runs = find_runs(client, place)
    with store_errors(f"delete the runs of study {study_name}"):
        for run in runs:
            client.delete_run(run.info.run_id)
    shutil.rmtree(place.tensorboard, ignore_errors=True)
    return len(runs)


def fetch_artifact(client: MlflowClient, run_id: str, path: str, folder: Path) -> Path:
    """Copy an artifact, a file or a folder, out of a run.

    Args:
        client: From `connect`.
        run_id: The run.
        path: The artifact's path inside the run.
        folder: Where to put it; must exist.

    Returns:
        The copy.

    Raises:
        TrackingError: The run or the artifact is missing, or the store cannot be reached.
    """
    with store_errors(f"fetch {path} of run {run_id}"):
        return Path(client.download_artifacts(run_id, path, str(folder)))


def fetch_config(stores: Stores, run_id: str) -> dict[str, Any]:
    """The configuration saved with a run, enough to repeat it.

    Args:
        stores: The addresses.
        run_id: A study or a trial.

    Returns:
        What `qm9flow.config.from_dict` reads.

    Raises:
        TrackingError: There is no such run, or it holds no configuration.
    """
    if not re.fullmatch(r"[0-9a-f]{32}", run_id):
        raise TrackingError(f"{run_id!r} is no run id of MLflow (32 hexadecimal digits)")
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_artifact(connect(stores), run_id, CONFIG_FILE, Path(folder))
        try:
            config = json.loads(path.read_text())
        except ValueError as error:
            raise TrackingError(f"{CONFIG_FILE} of run {run_id} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise TrackingError(f"{CONFIG_FILE} of run {run_id} holds no table")
    return config


def fetch_gradients(client: MlflowClient, run_id: str) -> dict[str, npt.NDArray[Any]]:
    """The gradient arrays of a trial.

    Args:
        client: From `connect`.
        run_id: The trial's run.

    Returns:
        As `qm9flow.tracking.spool.gradient_arrays` describes them.

    Raises:
        TrackingError: There is no such run, or no gradients were logged.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_artifact(client, run_id, GRADIENTS_FILE, Path(folder))
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)


def artifacts_of(client: MlflowClient, run: Run) -> ArtifactRepository:
    """Where a run's artifacts are; the client itself asks the database for it at each run.

    Args:
        client: From `connect`.
        run: The run.

    Returns:
        What writes and deletes there.
    """
    return get_artifact_repository(run.info.artifact_uri, tracking_uri=client.tracking_uri)


def add_to_run(
    client: MlflowClient, run_id: str, folder: Path, name: str, metrics: Mapping[str, float]
) -> None:
    """Add a folder and metrics to a run, whether it has ended or not.

    Args:
        client: From `connect`.
        run_id: The run.
        folder: What is copied, over files of the same names.
        name: The folder's path inside the run.
        metrics: Names and values.

    Raises:
        TrackingError: The run is unknown or was deleted, or the store refuses.
    """
    now = int(time.time() * 1000)
    entities = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
    with store_errors(f"store {name} with run {run_id}"):
        if client.get_run(run_id).info.lifecycle_stage != "active":
            raise TrackingError(f"run {run_id} was deleted: {name} is not stored with it")
        client.log_artifacts(run_id, str(folder), name)
        client.log_batch(run_id, metrics=entities)


def delete_artifacts(client: MlflowClient, run_id: str, path: str) -> None:
    """Remove an artifact, a file or a folder, from a run.

    Args:
        client: From `connect`.
        run_id: The run.
        path: The artifact's path inside the run; nothing happens if it is missing.

    Raises:
        MlflowException: The run is unknown or the store refuses.
    """
    artifacts_of(client, client.get_run(run_id)).delete_artifacts(path)
