"""Where stores and caches lie: the only place that reads the environment for it.

Environment variables:
    MLFLOW_TRACKING_URI: MLflow's own; runs and registered models.
    QM9FLOW_CACHE: Folder of QM9's cache and of fetched models.
"""

import os
import re
import sys
from pathlib import Path

from qm9flow.errors import ConfigError

_SQLITE = "sqlite:///"


def tracking_uri(given: str | None = None) -> str:
    """The store of runs and registered models.

    MLflow's own default, a database in the current folder, but as an absolute path: a process
    that changes its folder stays with its store.

    Args:
        given: A URI that goes before the environment's; None or empty for none.

    Returns:
        The URI; for SQLite with an absolute path.

    Raises:
        ConfigError: It is a path, not a URI.
    """
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    if "://" not in uri:
        raise ConfigError(
            f"the tracking URI must be like sqlite:///mlflow.db or http://host:5000, got {uri!r}"
        )
    database = sqlite_file(uri)
    return uri if database is None else f"{_SQLITE}{database}"


def without_password(text: str) -> str:
    """An address, or a message that holds some, as it may be shown and kept.

    Args:
        text: With addresses of servers or databases.

    Returns:
        The same with three stars for each password, before the host or among the options.
    """
    shown = re.sub(r"(//[^/:@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&][^=&\s]*pass[^=&\s]*=)[^&\s]*", r"\1***", shown)


def is_store_named(given: str | None = None) -> bool:
    """Whether somebody has said which store is meant.

    Args:
        given: A URI that goes before the environment's; None or empty for none.

    Returns:
        False where it is the default, a database in the current folder.
    """
    return bool(given or os.environ.get("MLFLOW_TRACKING_URI"))


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite store.

    Args:
        uri: A store's URI.

    Returns:
        Its absolute path; None for other stores and for a database in memory.
    """
    path = uri.removeprefix(_SQLITE)
    if path in (uri, "", ":memory:"):
        return None
    return Path(path).absolute()


def base_folder(uri: str) -> Path:
    """The folder for what qm9flow keeps beside a tracking store.

    Args:
        uri: The store's URI.

    Returns:
        `mlruns` beside an SQLite store; for other stores `mlruns` in the current folder.
    """
    database = sqlite_file(uri)
    return (database.parent if database else Path.cwd()) / "mlruns"


def callers_path(path: Path) -> Path:
    """A path that a user has given, from where the user is.

    `mlflow run` changes to the project's folder before it starts us; the caller's folder is known
    by the database that it hands over.

    Args:
        path: Absolute or relative.

    Returns:
        The absolute path.
    """
    is_project = "MLFLOW_RUN_ID" in os.environ
    return (base_folder(tracking_uri()).parent if is_project else Path.cwd()) / path


def cache_folder() -> Path:
    """The folder of what can be made or fetched again.

    Returns:
        `$QM9FLOW_CACHE`, else `qm9flow` in the user's cache folder.
    """
    if given := os.environ.get("QM9FLOW_CACHE"):
        return Path(given).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "qm9flow"
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA")
        return (Path(root) if root else Path.home() / "AppData" / "Local") / "qm9flow"
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "qm9flow"
