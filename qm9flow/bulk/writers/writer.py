"""What a format has to do so that a killed run can go on: append, and finish."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from qm9flow.bulk.columns import Column, Value, named


class Writer(ABC):
    """Bytes of one format.

    The same rows in the same chunks give the same bytes, whenever they are written.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        """Know the columns.

        Args:
            columns: Of all rows.
        """
        self.columns = tuple(columns)

    @abstractmethod
    def head(self) -> bytes:
        """What stands before all rows.

        Returns:
            Bytes, perhaps none.
        """

    @abstractmethod
    def chunk(self, rows: Sequence[Sequence[Value]]) -> bytes:
        """Some rows.

        Args:
            rows: One value a column.

        Returns:
            Bytes to append.
        """

    def finish(self, partial: Path, output: Path) -> None:
        """Give the file its name, complete.

        Args:
            partial: Head and all chunks.
            output: The name.

        Raises:
            OSError: It cannot be written.
        """
        partial.replace(output)


def without_surrogates(text: str) -> str:
    """A text for formats that must be Unicode.

    Args:
        text: Perhaps with lone surrogates, each of which was a byte that is not UTF-8.

    Returns:
        The text, with U+FFFD for each of those.
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def unicode_names(columns: Sequence[Column]) -> list[str]:
    """Names of columns for formats that must be Unicode.

    Args:
        columns: Of all rows.

    Returns:
        Each without surrogates; those that this makes equal have numbers behind them.
    """
    plain = [without_surrogates(column.name) for column in columns]
    return [column.name for column in named(plain, ())]
