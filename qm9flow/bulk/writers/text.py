"""CSV, TSV and JSON lines, gzipped or not."""

import csv
import gzip
import json
from collections.abc import Sequence

from qm9flow.bulk.columns import Column, Value
from qm9flow.bulk.writers.writer import Writer, unicode_names, without_surrogates


class _Line:
    """What `csv.writer` writes into: the line written last."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text


class TableWriter(Writer):
    """CSV or TSV: UTF-8, a header, quotes where needed, LF; `true` and `false`; empty for none."""

    def __init__(self, columns: Sequence[Column], delimiter: str) -> None:
        """Know the columns.

        Args:
            columns: Of all rows.
            delimiter: Between cells.
        """
        super().__init__(columns)
        self._line = _Line()
        # With CRLF, Python quotes cells that hold either of both; the line then ends in LF.
        self._writer = csv.writer(self._line, delimiter=delimiter, lineterminator="\r\n")

    def head(self) -> bytes:
        """The header."""
        return self._lines([[column.name for column in self.columns]])

    def chunk(self, rows: Sequence[Sequence[Value]]) -> bytes:
        """A line a row."""
        return self._lines([[_cell(value) for value in row] for row in rows])

    def _lines(self, rows: Sequence[Sequence[str]]) -> bytes:
        lines = []
        for row in rows:
            self._writer.writerow(row)
            lines.append(self._line.text[:-2] + "\n")
        return "".join(lines).encode("utf-8", "surrogateescape")


class JsonWriter(Writer):
    """JSON lines: an object a row, its keys the columns' names."""

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def chunk(self, rows: Sequence[Sequence[Value]]) -> bytes:
        """An object a row."""
        names = unicode_names(self.columns)
        lines = []
        for row in rows:
            plain = [without_surrogates(v) if isinstance(v, str) else v for v in row]
            item = dict(zip(names, plain, strict=True))
            lines.append(json.dumps(item, ensure_ascii=False, allow_nan=False) + "\n")
        return "".join(lines).encode()


class GzipWriter(Writer):
    """Another writer's bytes, gzipped: a member a chunk, which every program reads as one file."""

    def __init__(self, inner: Writer) -> None:
        """Wrap.

        Args:
            inner: Whose bytes to gzip.
        """
        super().__init__(inner.columns)
        self._inner = inner

    def head(self) -> bytes:
        """What stands before all rows."""
        return gzip.compress(self._inner.head(), mtime=0)

    def chunk(self, rows: Sequence[Sequence[Value]]) -> bytes:
        """Some rows."""
        return gzip.compress(self._inner.chunk(rows), mtime=0)


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)
