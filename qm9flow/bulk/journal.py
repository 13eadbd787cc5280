"""What a run has done so far, on the disk beside its output."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qm9flow.errors import ResumeError
from qm9flow.files import replace_file

ENDING = ".journal"
FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """The last point to which everything is on the disk.

    Attributes:
        identity: What must be the same to go on: model, options, columns of the input.
        rows: Rows done.
        refused: How many of them have an error.
        size: Bytes of the partial output.
        digest: SHA-256 of the input's rows done, in hexadecimal.
        is_complete: Whether these are all rows, and the output is being given its name.
        replaces: Whether an output stood there when the run began, and may be replaced.
    """

    identity: dict[str, Any]
    rows: int = 0
    refused: int = 0
    size: int = 0
    digest: str = ""
    is_complete: bool = False
    replaces: bool = False

    def moved(self, **changes: Any) -> "Journal":
        """A later point of the same run.

        Args:
            changes: Fields that differ.

        Returns:
            The point.
        """
        return replace(self, **changes)

    def write(self, path: Path) -> None:
        """Put it on the disk, in place of the one before.

        Args:
            path: The file.

        Raises:
            OSError: It cannot be written.
        """
        replace_file(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode())


def read_journal(path: Path) -> Journal | None:
    """A run's journal.

    Args:
        path: The file.

    Returns:
        None if there is none.

    Raises:
        ResumeError: It is damaged, or another version of qm9flow wrote it.
    """
    try:
        content = json.loads(path.read_text())
        if content.pop("format") != FORMAT:
            raise ResumeError(
                f"{path} was written by another version of qm9flow: begin anew with --restart"
            )
        return Journal(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ResumeError(
            f"{path}, which says how far a run came, cannot be read ({error}): begin anew with "
            "--restart"
        ) from error


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is not the same, for people.

    Args:
        before: An identity.
        now: Another.

    Returns:
        Such as `version 3, now 4`; empty if they are the same.
    """
    found = []
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        if old != new:
            found.append(f"{name} {_shown(old)}, now {_shown(new)}")
    return "; ".join(found)


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else text[:197] + "..."
