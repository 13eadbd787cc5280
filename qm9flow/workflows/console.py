"""How a workflow talks: lines for people, progress of long work, the wish to stop."""

from collections.abc import Callable
from dataclasses import dataclass


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def _unheard(text: str) -> None:
    """A remark that nobody reads."""


@dataclass(frozen=True)
class Console:
    """What the caller of a workflow lends it.

    Attributes:
        say: Prints a line or a table.
        progress: Told what is being done, how much of it is done, and of how much.
        stop: Whether somebody wants the work to end at the next good moment.
        remark: Prints a line that is no result.
    """

    say: Callable[[str], None]
    progress: Callable[[str, int, int], None] = _silent
    stop: Callable[[], bool] = lambda: False
    remark: Callable[[str], None] = _unheard


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """The work ended early because it was asked to; it can be continued."""
