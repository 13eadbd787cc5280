"""What users give, before it is read: how messages show it, and what is refused unread."""

import reprlib

from qm9flow.elements import NUMBER_OF
from qm9flow.errors import InvalidRecordError, TooLargeError, UnreadableError
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
