"""SDF: mol blocks with data items, which become columns."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from qm9flow.bulk.readers.lines import MAX_CHARACTERS, Lines
from qm9flow.bulk.readers.scan import late, scanned
from qm9flow.bulk.rows import Row
from qm9flow.errors import RowError

_END = "M  END"
_ITEM = re.compile(r">[^<]*<(.+)>")


@dataclass
class _Entry:
    """One record: its first line, the mol block, data items by name."""

    line: int
    block: list[str] = field(default_factory=list)
    items: dict[str, list[str]] = field(default_factory=dict)
    characters: int = 0


class SdfReader:
    """Rows of an SDF. Columns: `name`, the first line of a mol block, and each data item."""

    def __init__(self, lines: Lines, geometry: str | None) -> None:
        """Look through the file for its data items.

        Args:
            lines: The file.
            geometry: Where the coordinates come from; None means the format's default.

        Raises:
            InputFileError: The file cannot be read.
        """
        items, self.total, self._entries = scanned(lines, _entries, lambda entry: entry.items)
        self.columns = ("name", *items)
        self._said = {"geometry": geometry} if geometry else {}

    def rows(self) -> Iterator[Row]:
        """Each row, once, in order.

        Yields:
            Rows.

        Raises:
            InputFileError: The file cannot be read on.
        """
        items = self.columns[1:]
        known = set(items)
        for entry in self._entries:
            name = entry.block[0].strip() if entry.block else ""
            cells = (name, *("\n".join(entry.items.get(item, ())) for item in items))
            if entry.characters > MAX_CHARACTERS:
                yield Row(cells, _too_long(entry.line))
                continue
            record = {"sdf": "\n".join(entry.block), **self._said}
            yield Row(cells, record, late(item for item in entry.items if item not in known))


def _too_long(line: int) -> RowError:
    return RowError(
        f"the record from line {line:,} on is longer than {MAX_CHARACTERS:,} characters"
    )


def _entries(lines: Lines) -> Iterator[_Entry]:
    """Records, closed by a line `$$$$`; the last one need not be."""
    entry, item, has_block, is_blank = _Entry(lines.number + 1), "", False, True
    while (line := lines.read()) is not None:
        if line.startswith("$$$$"):
            yield entry
            entry, item, has_block, is_blank = _Entry(lines.number + 1), "", False, True
            continue
        is_blank = is_blank and not line.strip()
        text = line.rstrip("\r\n")
        entry.characters += len(line)
        if entry.characters > MAX_CHARACTERS:
            continue
        if not has_block:
            entry.block.append(text)
            has_block = text.startswith(_END)
        elif text.startswith(">") and (not item or _ITEM.match(text)):
            found = _ITEM.match(text)
            item = found[1] if found else text[1:].strip()
            entry.items.setdefault(item, [])
        elif not text.strip():
            item = ""
        elif item:
            entry.items[item].append(text)
    if not is_blank:
        yield entry
