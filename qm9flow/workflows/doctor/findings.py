"""What an examination finds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
