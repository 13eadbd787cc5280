"""CSV and TSV with a header and a column of SMILES.

Strict about quotes: what a spreadsheet would guess about is a row with an error, and reading goes
on with the next line.
"""

import csv
from collections.abc import Iterator, Sequence

from qm9flow.bulk.readers.lines import MAX_CHARACTERS, Lines
from qm9flow.bulk.rows import Row, fitted
from qm9flow.errors import InputFileError, RowError
from qm9flow.molecules.given import shown

SMILES_COLUMNS = ("smiles", "canonical_smiles", "isomeric_smiles", "smiles_string", "smi")
"""Headers that name the column of SMILES, whatever their case, the best first."""

_WIDEST = 10_000


class _TooLongError(Exception):
    """A record is longer than any may be."""


class TableReader:
    """Rows of a CSV or TSV. Blank lines are no rows."""

    def __init__(self, lines: Lines, delimiter: str | None, smiles_column: str | None) -> None:
        """Read the header.

        Args:
            lines: The file.
            delimiter: Between cells; None finds it in the header: a comma, or, where that holds
                none, a semicolon or a tab.
            smiles_column: Header of the column of SMILES; None looks for `SMILES_COLUMNS`.

        Raises:
            InputFileError: There is no header, or no such column.
        """
        self.total: int | None = None
        self._lines = lines
        self._delimiter = delimiter or _delimiter(lines)
        self._taken: list[str] = []
        self._restart()
        self.columns = self._header()
        self._smiles = _place(self.columns, smiles_column, lines.name)
        self.smiles_column = self.columns[self._smiles]

    def rows(self) -> Iterator[Row]:
        """Each row, once, in order.

        Yields:
            Rows; those that are no CSV, or have other cells than the header, with an error.

        Raises:
            InputFileError: The file cannot be read on.
        """
        width = len(self.columns)
        while True:
            found = self._next()
            if found is None:
                return
            first, cells, wrong = found
            extra = cells[width:]
            if wrong is None and (len(cells) < width or any(extra)):
                wrong = _ragged(cells, width)
            if wrong is not None:
                where = self._where(first)
                yield Row(fitted(cells, width), RowError(f"{where} {wrong}"))
            else:
                row = cells[:width]
                yield Row(tuple(row), {"smiles": row[self._smiles]})

    def _header(self) -> tuple[str, ...]:
        found = self._next()
        if found is None:
            raise InputFileError(
                f"{self._lines.name} is empty: expected a header with a column of SMILES"
            )
        first, cells, wrong = found
        if wrong is None and len(cells) > _WIDEST:
            wrong = f"has {len(cells):,} columns; the limit is {_WIDEST:,}"
        if wrong is not None:
            raise InputFileError(
                f"{self._lines.name}: the header, {self._where(first)}, {wrong}; is it a table?"
            )
        return tuple(cell.strip() for cell in cells)

    def _where(self, first: int) -> str:
        last = self._lines.number
        return f"line {first:,}" if last <= first else f"the row of lines {first:,} to {last:,}"

    def _next(self) -> tuple[int, list[str], str | None] | None:
        """The next record: its first line, its cells, what is wrong with it."""
        while True:
            self._taken.clear()
            first = self._lines.number + 1
            try:
                cells = next(self._parser)
            except StopIteration:
                return None
            except (csv.Error, _TooLongError) as error:
                return first, self._recovered(), _reason(error)
            if cells:
                return first, cells, None

    def _recovered(self) -> list[str]:
        """Cells of the first line of a bad record, cut at each delimiter; the rest is read anew."""
        line, *rest = self._taken
        self._lines.put_back(rest)
        self._restart()
        if len(line) > MAX_CHARACTERS:
            return []
        return line.rstrip("\r\n").split(self._delimiter)

    def _restart(self) -> None:
        self._parser = csv.reader(self._feed(), delimiter=self._delimiter, strict=True)

    def _feed(self) -> Iterator[str]:
        characters = 0
        while (line := self._lines.read()) is not None:
            characters = len(line) + (characters if self._taken else 0)
            self._taken.append(line)
            if characters > MAX_CHARACTERS:
                raise _TooLongError
            yield line


def _delimiter(lines: Lines) -> str:
    seen = []
    while (line := lines.read()) is not None:
        seen.append(line)
        if line.strip() or len(seen) > 100:
            break
    lines.put_back(seen)
    header = seen[-1] if seen else ""
    return next((mark for mark in ",;\t" if mark in header), ",")


def _place(columns: Sequence[str], wanted: str | None, name: str) -> int:
    """Which column holds the SMILES."""
    if wanted is not None:
        places = [i for i, column in enumerate(columns) if column == wanted]
    else:
        lowered = [column.lower().replace(" ", "_") for column in columns]
        known = next((column for column in SMILES_COLUMNS if column in lowered), None)
        places = [i for i, column in enumerate(lowered) if column == known]
        if known is None:
            places = [i for i, column in enumerate(lowered) if "smiles" in column]
    if len(places) == 1:
        return places[0]
    names = ", ".join(shown(column) for column in columns[:50])
    if not places:
        what = f"no column {shown(wanted)}" if wanted is not None else "no column of SMILES"
        raise InputFileError(
            f"{name} has {what}; its columns are {names}: name one with --smiles-column, or, "
            "where there is no header, read it with --format smi"
        )
    raise InputFileError(
        f"{name} has {len(places)} columns that may hold the SMILES; its columns are {names}: "
        "name one with --smiles-column, rename it where two have one name"
    )


def _ragged(cells: list[str], width: int) -> str:
    if len(cells) < width:
        return f"has {len(cells)} cells, the header {width}"
    return f"has {len(cells)} cells, the header {width}; left out: {shown(','.join(cells[width:]))}"


def _reason(error: Exception) -> str:
    if isinstance(error, _TooLongError):
        return f"is longer than {MAX_CHARACTERS:,} characters"
    text = str(error)
    if "unexpected end" in text:
        return "opens a quote that is never closed"
    if "field limit" in text:
        return f"has a cell of more than {csv.field_size_limit():,} characters, or an open quote"
    return f"has a quote inside a cell, where it must be doubled ({text})"
