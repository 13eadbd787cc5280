"""Calls to a store that may be busy or away: retried, then reported, never raised.

Tracking must not end a training: a database locked by `mlflow ui` for a while is waited for, a
server that is gone is reported once a call and asked again with the next one.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mlflow.exceptions import MlflowException

from qm9flow.errors import TrackingError
from qm9flow.registry.database import reason
from qm9flow.tracking.stores import STORE_ERRORS

logger = logging.getLogger(__name__)

_REFUSALS = frozenset(
    {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE", "PERMISSION_DENIED"}
)
"""Error codes of MLflow that no waiting can cure."""

T = TypeVar("T")


class StoreCalls:
    """Makes calls with patience, and keeps the account of time and errors.

    Attributes:
        errors: Calls given up.
        seconds_spent: Wall time inside `timed` blocks.
        unanswered: Those of them that were given up because the store did not answer.
        is_away: Whether the latest call was one of these.
    """

    def __init__(self, patience_seconds: float = 30.0) -> None:
        """Start the account.

        Args:
            patience_seconds: How long a failing call is repeated. After one was given up, calls
                are tried once only, until one succeeds: a dead server must not halt a study.
        """
        self.errors = 0
        self.unanswered = 0
        self.seconds_spent = 0.0
        self._patience = patience_seconds
        self.is_away = False
        self._depth = 0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of the block as tracking; blocks may be nested."""
        start = time.perf_counter()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.seconds_spent += time.perf_counter() - start

    def attempt(self, what: str, call: Callable[[], object], *, is_local: bool = False) -> bool:
        """Make a call for its effect.

        Args:
            what: What is done, for the report.
            call: The call.
            is_local: Whether it is to this machine's disk; whether a store is away is then as
                unknown as before.

        Returns:
            Whether it succeeded.
        """

        def done() -> bool:
            call()
            return True

        was_away = self.is_away
        succeeded = self.fetch(what, done) is True
        if is_local:
            self.is_away = was_away
        return succeeded

    def fetch(self, what: str, call: Callable[[], T]) -> T | None:
        """Make a call for its answer.

        Args:
            what: What is asked, for the report.
            call: The call.

        Returns:
            The call's answer, None if it was given up.
        """
        deadline = time.monotonic() + (0.0 if self.is_away else self._patience)
        pause = 0.1
        while True:
            try:
                answer = call()
            except (*STORE_ERRORS, TrackingError) as error:
                refused = isinstance(error, TrackingError) or (
                    isinstance(error, MlflowException) and error.error_code in _REFUSALS
                )
                if refused or time.monotonic() + pause > deadline:
                    self.errors += 1
                    self.unanswered += not refused
                    self.is_away = not refused
                    logger.warning("tracking: could not %s: %s", what, reason(error))
                    return None
                time.sleep(pause)
                pause = min(2 * pause, 5.0)
            else:
                self.is_away = False
                return answer
