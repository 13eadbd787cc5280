"""Promotion and rollback reach a running service: look at the alias, prove the new model, swap.

The new version is fetched, verified, opened, warmed up and proven beside the old one, which answers
until then and which requests under way end with. What cannot be loaded changes nothing but what
`/model` says under `next`.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from qm9flow.errors import Qm9FlowError
from qm9flow.registry.find import FoundModel
from serving import metrics
from serving.model import Live, Model

logger = logging.getLogger("bentoml.qm9flow")

LONGEST_PAUSE_S = 600.0
"""Most seconds before a version that could not be loaded is tried again."""

_REASONS = {
    "fetch_failed": "the version cannot be fetched, or its bundle is damaged",
    "load_failed": "the version's model cannot be opened, or its numbers make no sense",
}


class Watch(Protocol):
    """What is asked where an alias points: `qm9flow.registry.watch.AliasWatch`."""

    alias: str

    def ask(self) -> int | None:
        """Where the alias points now."""

    def fetch(self, number: int) -> FoundModel:
        """A version's bundle, verified."""


class Swapper:
    """Keeps the live model with an alias. Used by one thread; others may describe it."""

    def __init__(
        self,
        live: Live,
        watch: Watch,
        open_model: Callable[[FoundModel], Model],
        pause_s: float,
        note: Callable[[FoundModel], None] = lambda found: None,
    ) -> None:
        """Look at nothing yet.

        Args:
            live: The model that answers.
            watch: The alias to follow.
            open_model: Opens and proves a model, or raises.
            pause_s: Seconds between two looks; a version that could not be loaded is tried again
                after as many, then after twice as many, and so on.
            note: Is told what is about to answer.
        """
        self._live = live
        self._watch = watch
        self._open = open_model
        self._pause_s = pause_s
        self._note = note
        self._asked: datetime | None = None
        self._silent_since: datetime | None = None
        self._next: dict[str, Any] | None = None
        self._again_at = 0.0

    def look(self) -> None:
        """Ask once where the alias points, and go there; never raises what a store may do."""
        try:
            number = self._watch.ask()
        except (Qm9FlowError, OSError) as error:  # a folder may be closed to us meanwhile
            self._note_silence(error)
            return
        self._note_answer()
        if number is None or number == self._live.model.version:
            self._next = None
            return
        is_failed = self._next is not None and self._next["version"] == number
        if not is_failed or time.monotonic() >= self._again_at:
            self._move(number, self._next["tries"] if self._next and is_failed else 0)

    def describe(self) -> dict[str, Any]:
        """How the alias stands, as plain JSON values; nothing of where the store lies."""
        return {
            "watch": {
                "alias": self._watch.alias,
                "asked": _text(self._asked),
                "unanswered_since": _text(self._silent_since),
            },
            "next": self._next,
        }

    def _move(self, number: int, tries: int) -> None:
        code = "fetch_failed"
        try:
            found = self._watch.fetch(number)
            code = "load_failed"
            model = self._open(found)
        except Qm9FlowError as error:
            logger.error("version %s is not taken: %s", number, error)
            self._note_failure(number, code, tries + 1)
        except Exception:
            logger.exception("version %s is not taken", number)
            self._note_failure(number, code, tries + 1)
        else:
            self._swap(model)

    def _swap(self, model: Model) -> None:
        before = self._live.model.found.label
        self._note(model.found)
        # Before the swap, so that nobody sees the version answer and fail at once.
        self._next = None
        self._live.replace(model)
        metrics.count_swap("ok")
        metrics.set_version(model.version)
        logger.info("%s answers now, before it was %s", model.found.label, before)

    def _note_failure(self, number: int, code: str, tries: int) -> None:
        wait_s = min(self._pause_s * 2.0 ** (tries - 1), max(LONGEST_PAUSE_S, self._pause_s))
        self._again_at = time.monotonic() + wait_s
        message = (
            f"{_REASONS[code]}; {self._live.model.found.label} goes on answering; the service's "
            "log says why"
        )
        self._next = {
            "version": number,
            "error": {"code": code, "message": message},
            "tries": tries,
        }
        metrics.count_swap(code)

    def _note_silence(self, error: Exception) -> None:
        metrics.set_registry_answers(False)
        if self._silent_since is None:
            self._silent_since = datetime.now(UTC)
            logger.warning(
                "the registry does not answer, %s goes on answering: %s",
                self._live.model.found.label,
                error,
            )

    def _note_answer(self) -> None:
        metrics.set_registry_answers(True)
        self._asked = datetime.now(UTC)
        if self._silent_since is not None:
            self._silent_since = None
            logger.info("the registry answers again")


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
