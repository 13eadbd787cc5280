"""Where everything is written: MLflow's store, Optuna's, TensorBoard's files, unfinished state.

MLflow's own default decides: `sqlite:///mlflow.db` in the current folder, everything else under
`mlruns/` beside that database, so that `mlflow ui` and `tensorboard --logdir mlruns/tensorboard`
need no option. `mlflow run` changes to the project's folder before it calls us and hands the
caller's database over in `MLFLOW_TRACKING_URI`: paths therefore follow the database, never the
current folder.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from qm9flow import locations
from qm9flow.errors import TrackingError
from qm9flow.registry import database

DEFAULT_EXPERIMENT_ID = "0"
"""MLflow's experiment "Default"."""

STORE_ERRORS = database.STORE_ERRORS
"""What a store raises when it cannot be reached or refuses (network errors are `OSError`)."""


@dataclass(frozen=True)
class Stores:
    """Addresses of all stores of a study.

    Attributes:
        tracking_uri: MLflow's store, absolute.
        optuna_url: Optuna's storage.
        tensorboard_dir: One folder a study, one a trial in it.
        state_dir: What is needed to go on after a kill.
    """

    tracking_uri: str
    optuna_url: str
    tensorboard_dir: Path
    state_dir: Path

    @property
    def base(self) -> Path:
        """The folder `mlruns/` that holds artifacts, TensorBoard files and state."""
        return self.state_dir.parent

    @property
    def default_optuna_url(self) -> str:
        """Optuna's storage where none was named."""
        return f"sqlite:///{self.base}/optuna.db"


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite database.

    Args:
        url: A database URL, driver and options allowed.

    Returns:
        Its path as written (perhaps relative); None for other databases and one in memory.
    """
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^:?][^?]*)(?:\?.*)?", url)
    return Path(match[1]) if match else None


def _absolute(url: str) -> str:
    path = sqlite_path(url)
    if path is None or path.is_absolute():
        return url
    return url.replace(f":///{path}", f":///{locations.callers_path(path)}", 1)


def resolve_stores(storage: str | None = None) -> Stores:
    """Find the stores; nothing is created or opened.

    Args:
        storage: Optuna storage URL; none means `optuna.db` under `mlruns/`. A relative SQLite
            path is taken from the current folder, under `mlflow run` from the caller's.

    Returns:
        The addresses, all absolute.

    Raises:
        ConfigError: `MLFLOW_TRACKING_URI` is a path, not a URI.
    """
    uri = locations.tracking_uri()
    base = locations.base_folder(uri)
    return Stores(
        tracking_uri=uri,
        optuna_url=_absolute(storage or f"sqlite:///{base}/optuna.db"),
        tensorboard_dir=base / "tensorboard",
        state_dir=base / "state",
    )


def is_server(uri: str) -> bool:
    """Whether runs are kept by a server, which others may use as well.

    Args:
        uri: MLflow's store.

    Returns:
        False for a database that we open ourselves.
    """
    return urlsplit(uri).scheme in ("http", "https", "databricks")


@contextmanager
def store_errors(what: str, path: Path | None = None) -> Iterator[None]:
    """Turn whatever a store raises into a `TrackingError`.

    Args:
        what: What is being done, for the message.
        path: The store's SQLite file, if it may be what is wrong.

    Yields:
        Nothing.

    Raises:
        TrackingError: The store cannot be reached or refuses.
    """
    try:
        yield
    except STORE_ERRORS as error:
        raise TrackingError(database.explain(error, f"cannot {what}", path)) from error


def connect(stores: Stores) -> MlflowClient:
    """Open MLflow's store, creating a database that does not exist yet.

    A database made here gets `<base>/<experiment>` as its artifact folder: MLflow itself would
    take `mlruns` of the current folder, which under `mlflow run` is the project's. It appears
    under its name when it is complete: a kill leaves none.

    Args:
        stores: The addresses.

    Returns:
        A client of MLflow; the process-wide tracking URI is left alone.

    Raises:
        TrackingError: The store cannot be reached or is of another version.
    """
    # A server's client prints links to stdout at the end of each run, into `--json` answers.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # The client's own patience with a server that is away, seven tries and minutes a call, would
    # halt a study; ours is in `calls`.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    # MLflow prints each of a store's errors with its traceback; we report them in a line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    path = sqlite_path(stores.tracking_uri)
    with store_errors(f"open the tracking store {stores.tracking_uri}", path):
        if not is_server(stores.tracking_uri):
            stores.base.mkdir(parents=True, exist_ok=True)
            if path is not None:
                _provide(path, stores.base)
            SqlAlchemyStore(stores.tracking_uri, str(stores.base))
        return MlflowClient(tracking_uri=stores.tracking_uri)


def _provide(path: Path, base: Path) -> None:
    """Make sure that there is a database that can be written to."""

    def fill(made: Path) -> None:
        SqlAlchemyStore(f"sqlite:///{made}", str(base)).engine.dispose()

    if not path.exists() and (complaint := database.make_database(path, fill)):
        raise TrackingError(complaint)
    if complaint := database.check_database(path):
        raise TrackingError(complaint)
    if not os.access(path, os.W_OK):
        raise TrackingError(f"MLflow's database {path} is read-only for this user")


def target_experiment(client: MlflowClient) -> Experiment | None:
    """The experiment that runs go to; none is created.

    Args:
        client: From `connect`.

    Returns:
        The experiment, perhaps a deleted one; None if the named one is yet to be made.

    Raises:
        TrackingError: There is none of that id, or the store cannot be reached.
    """
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    wanted = os.environ.get("MLFLOW_EXPERIMENT_ID")
    with store_errors("find the experiment"):
        if name and not wanted:
            return client.get_experiment_by_name(name)
        return client.get_experiment(wanted or DEFAULT_EXPERIMENT_ID)


def find_experiment(client: MlflowClient, stores: Stores) -> str:
    """The experiment that runs go to, by MLflow's own rules; a named one is created if missing.

    Args:
        client: From `connect`.
        stores: The addresses.

    Returns:
        The id of MLFLOW_EXPERIMENT_ID, or of the experiment named MLFLOW_EXPERIMENT_NAME, else
        of MLflow's "Default".

    Raises:
        TrackingError: The experiment is missing or deleted, or the store cannot be reached.
    """
    experiment = target_experiment(client)
    if experiment is None:
        with store_errors("make the experiment"):
            return _create_experiment(client, stores, os.environ["MLFLOW_EXPERIMENT_NAME"])
    if experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"the experiment {experiment.name!r} was deleted; restore it with `mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`, or name another one in "
            "MLFLOW_EXPERIMENT_NAME"
        )
    return str(experiment.experiment_id)


def _create_experiment(client: MlflowClient, stores: Stores, name: str) -> str:
    if is_server(stores.tracking_uri):
        return str(client.create_experiment(name))
    return str(SqlAlchemyStore(stores.tracking_uri, str(stores.base)).create_experiment(name))
