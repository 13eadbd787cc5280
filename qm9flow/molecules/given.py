"""What users give, before it is read: how messages show it, and what is refused unread."""

import reprlib
from collections.abc import Iterable, Mapping

from qm9flow import properties
from qm9flow.elements import NUMBER_OF
from qm9flow.errors import ConfigError, InvalidRecordError, TooLargeError, UnreadableError
from qm9flow.molecules.molecule import Geometry

MAX_TEXT_CHARACTERS = 1_000_000
"""Longer XYZ or SDF texts cannot describe a molecule within `MAX_ATOMS`."""

KNOWN = ", ".join(NUMBER_OF)
"""Symbols of the elements that there are, for messages."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 2, 50, 40


def shown(value: object) -> str:
    """What a user sent, for an error message: short, in ASCII, whatever it is.

    Args:
        value: Anything.

    Returns:
        At most 60 characters.
    """
    try:
        text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode()
    except ValueError:  # an integer of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def wanted_targets(names: object) -> tuple[str, ...]:
    """Names of targets as a user gives them.

    Args:
        names: Should be a list of names; None means all targets.

    Returns:
        Each once, in order.

    Raises:
        ConfigError: It is no list of names, or an empty one.
        UnknownTargetError: There is no such target.
    """
    if names is None:
        return properties.TARGETS
    known = f"the targets are {', '.join(properties.TARGETS)}"
    if isinstance(names, str | bytes | Mapping) or not isinstance(names, Iterable):
        raise ConfigError(
            "targets must be a list of names, or left out for all of them, got "
            f"{shown(names)}; {known}"
        )
    given = list(names)
    if not given:
        raise ConfigError(
            f"targets is an empty list: name some, or leave it out for all of them; {known}"
        )
    for name in given:
        if not isinstance(name, str):
            raise ConfigError(f"a target is named by a text, got {shown(name)}; {known}")
    return tuple(dict.fromkeys(properties.get(name).name for name in given))


def require_text(text: object, what: str) -> str:
    """A text of a length that can be read.

    Args:
        text: What was given.
        what: What it should be, for messages.

    Returns:
        The text.

    Raises:
        UnreadableError: It is no text.
        TooLargeError: It is too long.
    """
    if not isinstance(text, str):
        raise UnreadableError(f"expected {what}, got {shown(text)}")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise TooLargeError(
            f"the text has {len(text):,} characters; the limit is {MAX_TEXT_CHARACTERS:,}"
        )
    return text


def require_source(geometry: object) -> Geometry:
    """Where given coordinates come from.

    Args:
        geometry: What was given.

    Returns:
        The same.

    Raises:
        InvalidRecordError: Coordinates come from nowhere else than DFT or something approximate.
    """
    if geometry not in ("dft", "approximate"):
        raise InvalidRecordError(f"geometry must be dft or approximate, got {shown(geometry)}")
    return geometry
