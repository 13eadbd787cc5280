"""What an examination finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from qm9flow.errors import Qm9FlowError

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Remedy:
    """What can be done about a finding.

    Attributes:
        plan: What it will do, in words.
        apply: Does it; gives what was done, in words.
    """

    plan: str
    apply: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: What it belongs to: `versions`, `data`, `runs`, ...
        state: `good`; `note`, what people should know; `bad`, what stands in the way of work.
        text: What was found, and what to do where there is no remedy.
        remedy: What `--fix` does, None if nothing.
    """

    area: str
    state: State
    text: str
    remedy: Remedy | None = None


def answering(area: str, ask: Callable[[], str]) -> Finding:
    """What a question came to that qm9flow's own errors answer as well.

    Args:
        area: What it belongs to.
        ask: Gives the text of a good finding.

    Returns:
        The finding; bad, with the error's message, if one was raised.
    """
    try:
        return Finding(area, "good", ask())
    except Qm9FlowError as error:
        return Finding(area, "bad", one_line(str(error)))


def one_line(text: str) -> str:
    """A message in one line.

    Args:
        text: The message.

    Returns:
        The same without line breaks.
    """
    return " ".join(text.split())
