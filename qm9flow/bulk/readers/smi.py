"""SMILES, one a line, a name behind it if you like."""

import re
from collections.abc import Iterator

from qm9flow.bulk.readers.lines import MAX_CHARACTERS, Lines
from qm9flow.bulk.rows import Row
from qm9flow.errors import RowError

_HEADERS = ("smiles", "canonical_smiles")
"""First words of a first line that is a header, such as RDKit writes."""

_BLANK = re.compile(r"[ \t]+")


class SmilesReader:
    """Rows of a SMILES file. Blank lines, lines that begin with # and a header are no rows."""

    columns: tuple[str, ...] = ("smiles", "name")
    total: int | None = None

    def __init__(self, lines: Lines) -> None:
        """Read nothing yet.

        Args:
            lines: The file.
        """
        self._lines = lines

    def rows(self) -> Iterator[Row]:
        """Each row, once, in order.

        Yields:
            Rows.

        Raises:
            InputFileError: The file cannot be read on.
        """
        is_first = True
        while (line := self._lines.read()) is not None:
            if len(line) > MAX_CHARACTERS:
                where = f"line {self._lines.number:,}"
                yield Row(
                    ("", ""), RowError(f"{where} is longer than {MAX_CHARACTERS:,} characters")
                )
                continue
            words = _BLANK.split(line.strip(" \t\r\n"), maxsplit=1)
            smiles = words[0]
            is_header = is_first and smiles.lower() in _HEADERS
            if not smiles or smiles.startswith("#"):
                continue
            is_first = False
            if not is_header:
                yield Row((smiles, "".join(words[1:])), {"smiles": smiles})
