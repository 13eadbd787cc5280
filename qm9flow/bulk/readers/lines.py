"""Lines of a file or a pipe, gzipped or not, never more of them in memory than asked for."""

import gzip
import io
import sys
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from qm9flow.errors import InputFileError

MAX_CHARACTERS = 1_000_000
"""Longer lines and records are not kept: no molecule within the limits needs them."""

STDIN = "-"
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Lines:
    """Text lines with their endings (LF, CRLF or CR) and numbers. A context manager.

    Bytes that are not UTF-8 become lone surrogates (`surrogateescape`), so that a text file that
    is written the same way has them again. A byte order mark is left out.

    Attributes:
        source: The file's path, or `-`.
        is_pipe: Whether it can be read only once.
        name: What to call the file in messages.
        number: Of the line read last, from 1.
    """

    def __init__(self, source: Path | str, stdin: IO[bytes] | None = None) -> None:
        """Open a file.

        Args:
            source: Its path, or `-` for standard input.
            stdin: What `-` means; None is the process's own.

        Raises:
            InputFileError: It cannot be opened, is in UTF-16, or gzipped twice.
        """
        self.source = source
        is_stdin = str(source) == STDIN
        self.is_pipe = is_stdin or not Path(source).is_file()
        self.name = "standard input" if is_stdin else str(source)
        self.number = 0
        self._again: deque[str] = deque()
        self._layers: list[Any] = []
        try:
            self._raw = self._open(stdin)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            bytes_in = self._unzipped()
        except InputFileError:
            self.close()
            raise
        self._text = io.TextIOWrapper(
            bytes_in, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self._layers.append(self._text)

    def _unzipped(self) -> Any:
        bytes_in: Any = io.BufferedReader(self._raw, 1 << 16)
        self._layers.append(bytes_in)
        try:
            # A slow pipe may have given its first byte only.
            if bytes_in.peek(2)[:2] in (_GZIP, _GZIP[:1]):
                bytes_in = gzip.GzipFile(fileobj=bytes_in)
                if bytes_in.peek(2)[:2] == _GZIP:
                    raise InputFileError(f"{self.name} is gzipped twice: unzip it once")
            if bytes_in.peek(2)[:2] in _UTF16:
                raise InputFileError(f"{self.name} is in UTF-16: save it as UTF-8")
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        return bytes_in

    def _open(self, stdin: IO[bytes] | None) -> Any:
        if str(self.source) != STDIN:
            return io.FileIO(str(self.source))
        stream: Any = stdin if stdin is not None else sys.stdin.buffer
        return getattr(stream, "raw", stream)

    def read(self) -> str | None:
        """The next line.

        Returns:
            With its ending; only the last line may have none. None at the end of the file. Of a
            line longer than `MAX_CHARACTERS`, one character more than that.

        Raises:
            InputFileError: The file cannot be read on.
        """
        if self._again:
            self.number += 1
            return self._again.popleft()
        try:
            line = self._text.readline(MAX_CHARACTERS + 2)
            if len(line) > MAX_CHARACTERS + 1 and line[-1] not in "\r\n":
                self._skip_rest()
                line = line[: MAX_CHARACTERS + 1]
        except (OSError, EOFError, zlib.error) as error:
            raise self._unreadable(error) from error
        if not line:
            return None
        self.number += 1
        return line

    def put_back(self, lines: Sequence[str]) -> None:
        """Have lines read once more.

        Args:
            lines: Those read last, in order.
        """
        self._again.extendleft(reversed(lines))
        self.number -= len(lines)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        while self._layers:  # else each would close what it reads from when it is forgotten
            self._layers.pop().detach()
        if str(self.source) != STDIN:
            self._raw.close()

    def __enter__(self) -> "Lines":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _skip_rest(self) -> None:
        while (more := self._text.readline(1 << 16)) and more[-1] not in "\r\n":
            continue

    def _unreadable(self, error: Exception) -> InputFileError:
        if self.number == 0 and isinstance(error, OSError) and error.strerror:
            return InputFileError(f"cannot read {self.name}: {error.strerror}")
        what = str(error) or type(error).__name__
        if isinstance(error, EOFError):
            what = "the gzipped file is cut short"
        return InputFileError(
            f"{self.name} cannot be read on after line {self.number:,}: {what}; get it whole again"
        )
