"""A row of a file of molecules, and what reads rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from qm9flow.errors import MoleculeError


@dataclass(frozen=True, slots=True)
class Row:
    """One molecule of a file.

    Attributes:
        cells: What the file says beside the molecule, or with it, one text for each column.
        record: The molecule as in an HTTP request, or why the row holds none.
        remarks: What was left out of the cells; sentences for people.
    """

    cells: tuple[str, ...]
    record: Mapping[str, str] | MoleculeError
    remarks: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """About how much memory it takes."""
        held = sum(map(len, self.cells))
        if isinstance(self.record, MoleculeError):
            return held
        return held + sum(map(len, self.record.values()))


class Reader(Protocol):
    """Rows of one format.

    Attributes:
        columns: Names of the cells, as in the file: they may repeat.
        total: Rows of the file; None for a pipe.
    """

    columns: tuple[str, ...]
    total: int | None

    def rows(self) -> Iterator[Row]:
        """Each row, once, in order; never the whole file at a time.

        Yields:
            Rows.

        Raises:
            InputFileError: The file cannot be read on; the message says the line.
        """
        ...


def fitted(cells: list[str], width: int) -> tuple[str, ...]:
    """Cells of a row that has too few or too many.

    Args:
        cells: Those of the row.
        width: Columns of the file.

    Returns:
        `width` cells: empty ones behind, or the last ones cut off.
    """
    return tuple((cells + [""] * (width - len(cells)))[:width])
