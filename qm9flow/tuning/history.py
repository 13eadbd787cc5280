"""A study as its coordinator sees it: Optuna's storage is the truth, a copy in memory answers.

There is one writer, so the copy is always right: nothing is read back while a study runs, and the
sampler looks at memory. On SQLite alone an ask takes seconds in a long study.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from qm9flow.errors import ConfigError, DependencyError, StudyError
from qm9flow.locations import without_password
from qm9flow.registry.database import reason
from qm9flow.tracking.stores import sqlite_path
from qm9flow.tuning.sampling import TrialSampler, distributions
from qm9flow.tuning.spaces import Space

PAUSES_SECONDS = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 30.0)
"""Between tries of a write: a database that is busy, or away for a minute, is waited for."""

SQLITE_TIMEOUT_SECONDS = 20.0

KNOCKING = ("postgresql", "mysql", "mariadb")
"""Databases whose drivers take `connect_timeout`; without one, a server that takes a connection
and says nothing would be waited for without end."""

KNOCK_SECONDS = 10
"""For a database server to answer a connection."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, creating it if it does not exist.

    Args:
        url: A database URL.

    Returns:
        The storage.

    Raises:
        StudyError: It cannot be opened.
        ConfigError: The URL names no database.
        DependencyError: The database's driver is not installed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = sqlite_path(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": SQLITE_TIMEOUT_SECONDS}}
    elif url.startswith(KNOCKING):
        options["connect_args"] = {"connect_timeout": KNOCK_SECONDS}
    shown = without_password(url)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_other_tables(path)
        return RDBStorage(url, engine_kwargs=options)
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise ConfigError(
            f"storage {shown!r} is no database URL: use something like "
            "sqlite:////path/to/optuna.db or postgresql+psycopg://user@host/name"
        ) from error
    except ImportError as error:
        raise DependencyError(
            f"the study storage {shown} needs {error.name}, which is not installed; "
            "for PostgreSQL: pip install 'qm9flow[postgres]'"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, OSError, RuntimeError) as error:
        advice = "check the address, its rights and that it is a database of Optuna's"
        raise StudyError(
            f"cannot open the study storage {shown}: {reason(error)}; {advice}"
        ) from error


def _refuse_other_tables(path: Path) -> None:
    """Optuna would add its tables to whatever database it is given."""
    if not path.exists():
        return
    wanted = "SELECT name FROM sqlite_master WHERE type = 'table'"
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            rows = database.execute(wanted).fetchall()
    except sqlite3.Error:
        return  # what is wrong with it is said when it is opened
    tables = {name for (name,) in rows}
    if tables and "version_info" not in tables:
        raise StudyError(f"{path} is a database of another program, not Optuna's: name another one")


def find_study(storage: BaseStorage, name: str) -> int | None:
    """Optuna's id of a study.

    Args:
        storage: Where to look.
        name: Of the study.

    Returns:
        The id, None if there is no such study.
    """
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        return None


class History:
    """The trials of one study, written through to the storage.

    Attributes:
        name: Of the study.
    """

    def __init__(self, storage: BaseStorage, study_id: int, name: str) -> None:
        """Attach to a study; nothing is read before `load`.

        Args:
            storage: The truth.
            study_id: Of the study there.
            name: Of the study.
        """
        self.name = name
        self._storage = storage
        self._study_id = study_id
        self._mirror = InMemoryStorage()
        self._mirror_study = optuna.create_study(storage=self._mirror, direction="minimize")
        self._ids: list[int] = []
        self._mirror_ids: list[int] = []

    @classmethod
    def open(cls, url: str, name: str) -> Self:
        """Attach to a study, creating it if it does not exist.

        Args:
            url: Of the storage.
            name: Of the study.

        Returns:
            The history, not yet loaded.

        Raises:
            StudyError: The storage cannot be opened.
        """
        storage = open_storage(url)
        if find_study(storage, name) is None:
            with contextlib.suppress(optuna.exceptions.DuplicatedStudyError):
                storage.create_new_study([StudyDirection.MINIMIZE], name)
        return cls(storage, storage.get_study_id_from_name(name), name)

    def load(self) -> None:
        """Copy all trials into memory.

        Raises:
            StudyError: The storage does not answer.
        """
        trials = self._patiently(lambda: self._storage.get_all_trials(self._study_id))
        for trial in sorted(trials, key=lambda trial: trial.number):
            self._ids.append(trial._trial_id)
            self._mirror_ids.append(
                self._mirror.create_new_trial(self._mirror_study._study_id, trial)
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number; not to be changed."""
        return self._mirror_study.get_trials(deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """One trial; not to be changed.

        Args:
            number: Of the trial.

        Returns:
            The trial.
        """
        return self.trials[number]

    @property
    def attributes(self) -> dict[str, Any]:
        """What is noted about the study, read from the storage.

        Raises:
            StudyError: The storage does not answer.
        """
        return self._patiently(lambda: self._storage.get_study_user_attrs(self._study_id))

    def note(self, key: str, value: Any) -> None:
        """Note something about the study.

        Args:
            key: Its name.
            value: A JSON value.

        Raises:
            StudyError: The storage does not answer.
        """
        self._patiently(lambda: self._storage.set_study_user_attr(self._study_id, key, value))

    def note_at_once(self, key: str, value: Any) -> None:
        """As `note`, but with a single try.

        Args:
            key: Its name.
            value: A JSON value.

        Raises:
            StudyError: The storage does not answer, or the study is gone.
        """
        with _as_study_error(self.name):
            self._storage.set_study_user_attr(self._study_id, key, value)

    def look_up(self, key: str) -> Any:
        """A note about the study, read with a single try.

        Args:
            key: Its name.

        Returns:
            The value, None if there is none.

        Raises:
            StudyError: The storage does not answer, or the study is gone.
        """
        with _as_study_error(self.name):
            return self._storage.get_study_user_attrs(self._study_id).get(key)

    def ask(self, sampler: TrialSampler, space: Space, attributes: Mapping[str, Any]) -> int:
        """Start the next trial; it is born with all its parameters.

        Trials that somebody has enqueued with Optuna's own tools come first.

        Args:
            sampler: Says where.
            space: What is searched.
            attributes: Noted about the trial.

        Returns:
            Its number.

        Raises:
            StudyError: The storage does not answer, or another program writes to the study.
        """
        trial = self._mirror_study.ask()
        asked_for = self._mirror.get_trial(trial._trial_id).system_attrs.get("fixed_params", {})
        params = sampler.propose(trial, asked_for)
        for name, distribution in distributions(space, params).items():
            if name not in trial.params:
                value = distribution.to_internal_repr(params[name])
                self._mirror.set_trial_param(trial._trial_id, name, value, distribution)
        for key, value in attributes.items():
            self._mirror.set_trial_user_attr(trial._trial_id, key, value)
        if trial.number < len(self._ids):
            self._start_waiting(trial.number, attributes)
        else:
            self._mirror_ids.append(trial._trial_id)
            self._ids.append(self._create(trial.number, attributes))
        return trial.number

    def _create(self, number: int, attributes: Mapping[str, Any]) -> int:
        mine = self._mirror.get_trial(self._mirror_ids[number])
        template = create_trial(
            state=TrialState.RUNNING,
            params=mine.params,
            distributions=mine.distributions,
            user_attrs=dict(attributes),
        )
        trial_id = self._patiently(lambda: self._storage.create_new_trial(self._study_id, template))
        given = self._patiently(lambda: self._storage.get_trial(trial_id)).number
        if given != number:
            raise StudyError(
                f"study {self.name!r}: another program added trials while it ran "
                f"(number {given} instead of {number}); start it again to go on"
            )
        return trial_id

    def _start_waiting(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Parameters first: a trial that a kill leaves half of is still waiting."""
        mine, trial_id = self.trial(number), self._ids[number]
        known = self._patiently(lambda: self._storage.get_trial(trial_id)).params
        for name, distribution in mine.distributions.items():
            if name not in known:
                value = distribution.to_internal_repr(mine.params[name])
                put = partial(self._storage.set_trial_param, trial_id, name, value, distribution)
                self._patiently(put)
        for key, value in attributes.items():
            self._patiently(partial(self._storage.set_trial_user_attr, trial_id, key, value))
        self._patiently(lambda: self._storage.set_trial_state_values(trial_id, TrialState.RUNNING))

    def annotate(self, number: int, key: str, value: Any) -> None:
        """Note something about a running trial.

        Args:
            number: Of the trial.
            key: Its name.
            value: A JSON value.

        Raises:
            StudyError: The storage does not answer.
        """
        trial_id = self._ids[number]
        self._patiently(lambda: self._storage.set_trial_user_attr(trial_id, key, value))
        self._mirror.set_trial_user_attr(self._mirror_ids[number], key, value)

    def report(self, number: int, epoch: int, score: float) -> None:
        """Record a running trial's score after an epoch; an epoch that has one keeps it.

        Args:
            number: Of the trial.
            epoch: Counted from 1.
            score: Lower is better.

        Raises:
            StudyError: The storage does not answer.
        """
        if epoch in self.trial(number).intermediate_values:
            return
        trial_id = self._ids[number]
        self._patiently(lambda: self._storage.set_trial_intermediate_value(trial_id, epoch, score))
        self._mirror.set_trial_intermediate_value(self._mirror_ids[number], epoch, score)

    def tell(self, number: int, state: TrialState, score: float | None) -> None:
        """End a running trial. It cannot be told again.

        Args:
            number: Of the trial.
            state: COMPLETE, PRUNED or FAIL.
            score: Its value, None for none.

        Raises:
            StudyError: The storage does not answer.
        """
        values = None if score is None or state == TrialState.FAIL else [score]
        trial_id = self._ids[number]
        self._patiently(lambda: self._end(trial_id, state, values))
        self._mirror.set_trial_state_values(self._mirror_ids[number], state, values)

    def _end(self, trial_id: int, state: TrialState, values: list[float] | None) -> None:
        """Once more does no harm: a storage may have written what it could not answer to."""
        try:
            self._storage.set_trial_state_values(trial_id, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            if self._storage.get_trial(trial_id).state != state:
                raise

    def _patiently(self, call: Callable[[], T]) -> T:
        for pause in PAUSES_SECONDS:
            try:
                return call()
            except optuna.exceptions.StorageInternalError as error:
                log.warning("study %s: its storage is busy or away (%s)", self.name, reason(error))
                time.sleep(pause)
        with _as_study_error(self.name):
            return call()


@contextlib.contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn what a storage raises while somebody merely looks into a `StudyError`.

    Args:
        url: Of the storage, for the message.

    Yields:
        Nothing.

    Raises:
        StudyError: It does not answer, or is damaged.
    """
    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise StudyError(
            f"the study storage {without_password(url)} cannot be read: {reason(error)}; start its "
            "server, or restore a copy of it"
        ) from error


@contextlib.contextmanager
def _as_study_error(name: str) -> Any:
    try:
        yield
    except optuna.exceptions.StorageInternalError as error:
        raise StudyError(
            f"the storage of study {name!r} does not answer ({reason(error)}); "
            "nothing is lost: start the study again when it does"
        ) from error
    except KeyError as error:
        raise StudyError(f"study {name!r} is gone from its storage") from error
