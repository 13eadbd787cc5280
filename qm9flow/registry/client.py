"""The connection to MLflow: patient with a busy database, plain in its errors."""

import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.environment_variables import MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR
from mlflow.exceptions import MlflowException

from qm9flow import locations
from qm9flow.errors import RegistryError
from qm9flow.registry.database import check_database, explain

logger = logging.getLogger(__name__)

WAITS_S = (0.25, 0.5, 1.0, 2.0)
"""Pauses before the next tries of a call that met a busy database."""

PROBE_S = 10.0
"""How long a server may take to answer the first request."""

START_HINT = "run `make study` or `qm9flow study run` to train and register a model"

T = TypeVar("T")


class Connection:
    """MLflow's client for one store.

    Attributes:
        uri: The tracking URI.
        client: MLflow's client; call it through `call`.
    """

    def __init__(self, uri: str) -> None:
        """Connect; `connect` does so once for a store.

        Args:
            uri: The tracking URI.

        Raises:
            RegistryError: The store cannot be opened.
        """
        self.uri = uri
        refuse_silent_server(uri)
        self.client: MlflowClient = self.call(
            "opening the store", lambda: MlflowClient(tracking_uri=uri)
        )

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Call MLflow; try again while the database is busy.

        Args:
            what: What the call does, for messages.
            function: The call.

        Returns:
            Its result.

        Raises:
            RegistryError: MLflow refused, or the database stayed busy.
        """
        for wait_s in (*WAITS_S, None):
            try:
                return function()
            except (MlflowException, sqlalchemy.exc.SQLAlchemyError) as error:
                if not _is_busy(error) or wait_s is None:
                    database = locations.sqlite_file(self.uri)
                    message = explain(error, f"{what} failed in {self.uri}", database)
                    raise RegistryError(message) from error
                logger.warning("%s: the store is busy, trying again in %s s", what, wait_s)
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def find(self, what: str, function: Callable[[], T]) -> T | None:
        """Call MLflow for something that may not be there.

        Args:
            what: What the call does, for messages.
            function: The call.

        Returns:
            Its result, None if the store holds no such thing.

        Raises:
            RegistryError: MLflow refused, or the database stayed busy.
        """

        def guarded() -> T | None:
            try:
                return function()
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise

        return self.call(what, guarded)

    def download(self, location: str, folder: Path) -> Path:
        """Copy a file or folder out of the artifact store.

        Args:
            location: Its URI or path.
            folder: An existing folder to copy it into.

        Returns:
            The copy.

        Raises:
            RegistryError: It is not there or cannot be read or written.
        """
        if not MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.is_set():
            MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # it would fill logs
        try:
            copy = self.call(
                "fetching",
                lambda: download_artifacts(location, dst_path=str(folder), tracking_uri=self.uri),
            )
        except OSError as error:
            raise RegistryError(f"{location} cannot be fetched to {folder}: {error}") from error
        return Path(copy)


_open = lru_cache(maxsize=8)(Connection)


def connect(tracking_uri: str | None = None) -> Connection:
    """Connect to a store that exists.

    Args:
        tracking_uri: None takes the environment's, or the database in the current folder.

    Returns:
        The connection; the same one for the same store.

    Raises:
        ConfigError: The URI is no URI.
        RegistryError: There is no such store, or it cannot be opened.
    """
    uri = locations.tracking_uri(tracking_uri)
    database = locations.sqlite_file(uri)
    if database is not None:
        if not database.exists():
            # MLflow would make an empty database and find nothing in it.
            raise RegistryError(f"there is no store {database}; {START_HINT}")
        if complaint := check_database(database):
            raise RegistryError(complaint)
    return _open(uri)


def _is_busy(error: Exception) -> bool:
    return isinstance(error, MlflowException) and error.error_code == "TEMPORARILY_UNAVAILABLE"


def refuse_silent_server(uri: str) -> None:
    """Ask a server for a sign of life: MLflow tries for minutes before it says that there is none.

    Args:
        uri: The tracking URI; other stores than servers are not asked.

    Raises:
        RegistryError: Nobody answers.
    """
    if not uri.startswith(("http://", "https://")):
        return
    parts = urlsplit(uri)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=PROBE_S):
            return
    except urllib.error.HTTPError:
        return  # somebody is there
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # MLflow may have been told of a certificate that we were not
        raise RegistryError(
            f"the store {address} does not answer ({reason}): start it, or name another by "
            "MLFLOW_TRACKING_URI"
        ) from error
