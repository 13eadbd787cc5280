"""XYZ and extended XYZ: frame behind frame; what an extended comment says becomes columns."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from qm9flow.bulk.readers.lines import MAX_CHARACTERS, Lines
from qm9flow.bulk.readers.scan import late, scanned
from qm9flow.bulk.rows import Row
from qm9flow.errors import RowError

_COUNT = re.compile(r"\s*\d{1,9}\s*", re.ASCII)
_PAIR = re.compile(r"""([A-Za-z_][\w.\-]*)=("[^"]*"|'[^']*'|\{[^}]*\}|\[[^\]]*\]|\S+)""")
_EXTENDED = re.compile(r"\bproperties\s*=", re.IGNORECASE)
_QM9_TAIL = 3
"""Lines behind the atoms in QM9's own files: frequencies, SMILES, InChI."""


@dataclass
class _Frame:
    """One molecule: its first line, its text, comment, and pairs of an extended comment."""

    line: int
    text: list[str] = field(default_factory=list)
    comment: str = ""
    pairs: dict[str, str] = field(default_factory=dict)
    characters: int = 0

    def add(self, line: str) -> None:
        """Count a line, and keep it within the limit."""
        self.characters += len(line)
        if self.characters <= MAX_CHARACTERS:
            self.text.append(line.rstrip("\r\n"))


class XyzReader:
    """Rows of an XYZ file. Columns: `comment`, and each key of extended comments.

    In extended XYZ (a comment with `Properties=`), `comment` is what is left beside the pairs.
    """

    def __init__(self, lines: Lines, geometry: str | None) -> None:
        """Look through the file for its keys.

        Args:
            lines: The file.
            geometry: Where the coordinates come from; None means the format's default.

        Raises:
            InputFileError: The file cannot be read.
        """
        keys, self.total, self._frames = scanned(lines, _frames, lambda frame: frame.pairs)
        self.columns = ("comment", *keys)
        self._said = {"geometry": geometry} if geometry else {}

    def rows(self) -> Iterator[Row]:
        """Each row, once, in order.

        Yields:
            Rows.

        Raises:
            InputFileError: The file cannot be read on.
        """
        keys = self.columns[1:]
        known = set(keys)
        for frame in self._frames:
            cells = (frame.comment, *(frame.pairs.get(key, "") for key in keys))
            if frame.characters > MAX_CHARACTERS:
                yield Row(cells, _too_long(frame.line))
                continue
            record = {"xyz": "\n".join(frame.text), **self._said}
            yield Row(cells, record, late(key for key in frame.pairs if key not in known))


def _too_long(line: int) -> RowError:
    return RowError(f"the frame from line {line:,} on is longer than {MAX_CHARACTERS:,} characters")


def _frames(lines: Lines) -> Iterator[_Frame]:
    """Frames; whatever cannot be part of one belongs to the frame before it."""
    while (line := lines.read()) is not None:
        if not line.strip():
            continue
        frame = _Frame(lines.number)
        frame.add(line)
        if _COUNT.fullmatch(line):
            _read_frame(frame, lines, int(line))
        else:
            _read_junk(frame, lines)
        yield frame


def _read_frame(frame: _Frame, lines: Lines, count: int) -> None:
    comment = lines.read()
    if comment is None:
        return
    frame.add(comment)
    _read_comment(frame, comment.strip()[:MAX_CHARACTERS])
    for _ in range(count):
        line = lines.read()
        if line is None:
            return
        if len(line.split(None, 4)) < 4:  # no atom: the frame is shorter than it says
            lines.put_back([line])
            break
        frame.add(line)
    if comment.startswith("gdb"):
        _read_junk(frame, lines, _QM9_TAIL)
    else:
        _read_junk(frame, lines)


def _read_junk(frame: _Frame, lines: Lines, most: int | None = None) -> None:
    """Lines up to the next that begins a frame."""
    while most is None or most > 0:
        line = lines.read()
        if line is None:
            return
        if _COUNT.fullmatch(line):
            lines.put_back([line])
            return
        if not line.strip():
            continue
        frame.add(line)
        most = None if most is None else most - 1


def _read_comment(frame: _Frame, comment: str) -> None:
    if not _EXTENDED.search(comment):
        frame.comment = comment
        return
    pairs = {key: _unquoted(value) for key, value in _PAIR.findall(comment)}
    frame.pairs = {key: value for key, value in pairs.items() if key.lower() != "properties"}
    frame.comment = _PAIR.sub("", comment).strip()


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] in "\"'" and value[0] == value[-1]
    return value[1:-1] if is_quoted else value
