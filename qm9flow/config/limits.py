"""What a value may be beyond its type, stated where its field is.

    hidden: Annotated[int, between(2, 512)] = 64

A field whose value is None is not checked: None means that nothing was set.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from qm9flow.errors import ConfigError

MAX_NAME = 200
"""UTF-8 bytes of a name; MLflow and file systems end at 250 and 255."""


def require(claim: bool, message: str) -> None:
    """Raise a `ConfigError` with that message unless the claim holds.

    Args:
        claim: What must be true.
        message: What must be, and what was got.

    Raises:
        ConfigError: The claim does not hold.
    """
    if not claim:
        raise ConfigError(message)


@dataclass(frozen=True)
class Limit:
    """A rule for one number."""

    text: str
    """What follows `must` in a message."""
    holds: Callable[[float], bool]
    """Whether a number obeys; NaN obeys none."""


def between(low: float, high: float) -> Limit:
    """From `low` to `high`, both included."""
    return Limit(f"lie between {low} and {high}", lambda value: low <= value <= high)


def at_least(low: float) -> Limit:
    """`low` or more."""
    return Limit(f"be at least {low}", lambda value: value >= low)


def above(low: float) -> Limit:
    """More than `low`."""
    return Limit(f"be above {low}", lambda value: value > low)


@functools.cache
def _limits_of(kind: type) -> list[tuple[str, Limit]]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        (name, limit)
        for name, hint in hints.items()
        for limit in getattr(hint, "__metadata__", ())
        if isinstance(limit, Limit)
    ]


def check_limits(config: Any) -> None:
    """Refuse a configuration with a field beyond its limit.

    Args:
        config: A configuration dataclass.

    Raises:
        ConfigError: The first such field, its limit and its value.
    """
    for name, limit in _limits_of(config.__class__):
        value = getattr(config, name)
        if value is not None:
            require(limit.holds(value), f"{name} must {limit.text}, got {value}")


def check_name(option: str, name: str) -> None:
    """Refuse a name that a store cannot search for, or a terminal not show.

    Args:
        option: What the name was given as, for the message.
        name: Of a study or a training.

    Raises:
        ConfigError: It is empty or too long, or holds quotes, backslashes or control characters.
    """
    require(
        0 < len(name.encode()) <= MAX_NAME and name.isprintable() and not set(name) & set("\"'`\\"),
        f"{option} must have 1 to {MAX_NAME} bytes of printable characters and no quotes or "
        f"backslashes, got {name!r}",
    )
