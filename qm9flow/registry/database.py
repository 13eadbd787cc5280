"""MLflow's SQLite database as a file: whether it can be used, made whole or not at all.

MLflow itself opens a file that is no database for the better part of an hour, and answers one
whose making was interrupted with pages of SQL: so the file is looked at first, and what MLflow
raises is said in one line.
"""

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import sqlalchemy.exc
from mlflow.exceptions import MlflowException

from qm9flow import locations

STORE_ERRORS = (MlflowException, sqlalchemy.exc.SQLAlchemyError, OSError)
"""What a store raises when it cannot be reached or refuses (network errors are `OSError`)."""

LOCKED_S = 20.0
"""How long another process may hold the database; MLflow waits as long."""

_COMPANIONS = ("-journal", "-wal")
"""What SQLite keeps beside a database; it belongs to that one only."""

_ABANDONED_S = 3600.0
"""Age at which an unfinished database has no maker any more; making one takes seconds."""

_START_ANEW = (
    "restore a copy of it, or move it away with all files {path}-*; the next study or training "
    "makes a new one, without the runs and models of this one"
)
_UNFINISHED = (
    "it is incomplete, as if a process was killed while making it; if none is making it now, "
    + _START_ANEW
)
_CHECK = "check the path, its rights and the disk, or name another database in MLFLOW_TRACKING_URI"

_ADVICE = {
    sqlite3.SQLITE_ERROR: _UNFINISHED,
    sqlite3.SQLITE_CORRUPT: _START_ANEW,
    sqlite3.SQLITE_NOTADB: _START_ANEW,
    sqlite3.SQLITE_BUSY: "another process holds it; try again when that has ended",
    sqlite3.SQLITE_READONLY: _CHECK,
    sqlite3.SQLITE_CANTOPEN: _CHECK,
    sqlite3.SQLITE_IOERR: _CHECK,
    sqlite3.SQLITE_FULL: _CHECK,
}
"""What to do, by the primary code of SQLite's error; others are no fault of the file."""


def check_database(path: Path) -> str | None:
    """Ask SQLite whether a file that exists is a database at all.

    Args:
        path: The file.

    Returns:
        What is wrong with it and what to do; None if nothing is. An empty file is an empty
        database.
    """
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", timeout=LOCKED_S, uri=True)
        ) as database:
            database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        return _complaint(path, error)
    return None


def explain(error: Exception, what: str, path: Path | None) -> str:
    """A store's error in one line.

    Args:
        error: What MLflow or SQLAlchemy raised.
        what: What failed, in words that the reason can follow.
        path: The store's file, None for a store that is none.

    Returns:
        If the fault is the file's, which one, what is wrong and what to do; else what failed and
        the first line of the reason.
    """
    cause: BaseException | None = error
    while path is not None and cause is not None:
        if isinstance(cause, sqlite3.Error) and (complaint := _complaint(path, cause)):
            return complaint
        cause = getattr(cause, "orig", None) or cause.__cause__
    return locations.without_password(f"{what}: {_first_line(error)}")


def reason(error: BaseException) -> str:
    """Why a store failed, in one line: what its driver said, without statements and parameters.

    Args:
        error: What MLflow, SQLAlchemy or Optuna raised.

    Returns:
        The reason, without passwords.
    """
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    return locations.without_password(_first_line(error))


def _first_line(error: BaseException) -> str:
    """The first line, and the second one where the first only announces it."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].rstrip().endswith(":") else lines[0]


def _complaint(path: Path, error: sqlite3.Error) -> str | None:
    advice = _ADVICE.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF)
    if advice is None:
        return None
    said = "it is a folder" if path.is_dir() else str(error).splitlines()[0]
    return f"{path} cannot be used as MLflow's database ({said}): {advice.format(path=path)}"


def make_database(path: Path, fill: Callable[[Path], None]) -> str | None:
    """Make a database that is not there: complete under its name, or not at all.

    It is made in a folder beside its place and then linked there. Of two processes that do so at
    once, one is first, and both then use that one's.

    Args:
        path: Where it shall be.
        fill: Makes it at the path that it is given, and closes it.

    Returns:
        What is in the way and what to do; None if the database is there.

    Raises:
        OSError: The folder cannot be written to.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    stray = [f"{path}{end}" for end in _COMPANIONS if Path(f"{path}{end}").exists()]
    if stray and not path.exists():
        # SQLite would play it back into the new database.
        return (
            f"{path} is not there, but {stray[0]} of such a database is: move it to where the "
            "database is now, or delete it if that one is gone for good"
        )
    prefix = f".{path.name}-"
    _sweep(path.parent, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
        made = Path(folder) / path.name
        fill(made)
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # another process was first
        except OSError:  # a file system without links
            if not path.exists():
                os.replace(made, path)
    return None


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what killed makers have left."""
    for left in folder.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left)
