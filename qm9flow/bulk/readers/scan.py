"""What a file must be read for beforehand: columns that each of its records names for itself."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol, TypeVar

from qm9flow.bulk.readers.lines import MAX_CHARACTERS, Lines
from qm9flow.errors import InputFileError

MAX_COLUMNS = 1_000
PIPE_RECORDS = 1_000
"""Records of a pipe that are looked at before the first is predicted: it cannot be read twice."""

PIPE_CHARACTERS = 8_000_000
"""Or records of so many characters."""


class Sized(Protocol):
    """A record that knows how long it is in the file."""

    characters: int


Record = TypeVar("Record", bound=Sized)


def scanned(
    lines: Lines,
    records: Callable[[Lines], Iterator[Record]],
    names: Callable[[Record], Iterable[str]],
) -> tuple[tuple[str, ...], int | None, Iterator[Record]]:
    """Names of all columns, in the order in which they appear.

    A file is read twice, once for the names.

    Args:
        lines: The file, at its start.
        records: Cuts lines into records.
        names: Columns that a record has.

    Returns:
        The names, how many records there are (None for a pipe), and the records.

    Raises:
        InputFileError: There are too many names, or the file cannot be read.
    """
    found: dict[str, None] = {}
    if not lines.is_pipe:
        total = 0
        with Lines(lines.source) as first_time:
            for record in records(first_time):
                total += 1
                _add(found, names(record), lines.name)
        return tuple(found), total, records(lines)
    head: list[Record] = []
    stream, held = records(lines), 0
    for record in stream:
        head.append(record)
        held += min(record.characters, MAX_CHARACTERS)
        _add(found, names(record), lines.name)
        if len(head) == PIPE_RECORDS or held > PIPE_CHARACTERS:
            break
    return tuple(found), None, chain(head, stream)


def late(names: Iterable[str]) -> tuple[str, ...]:
    """What to say of columns that turned up behind the records looked at.

    Args:
        names: The columns.

    Returns:
        A sentence for people; none if there are none.
    """
    listed = ", ".join(names)
    if not listed:
        return ()
    return (
        f"left out: {listed}, first seen after the first records of standard input; "
        "give a file instead",
    )


def _add(found: dict[str, None], names: Iterable[str], name: str) -> None:
    found.update(dict.fromkeys(names))
    if len(found) > MAX_COLUMNS:
        raise InputFileError(
            f"{name} has more than {MAX_COLUMNS:,} different names of data: is it what it is "
            "said to be?"
        )
