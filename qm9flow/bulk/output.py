"""Where predictions go: a file that appears complete and survives kills, or a stream."""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from qm9flow.bulk.columns import Value
from qm9flow.bulk.journal import ENDING, Journal, difference, read_journal
from qm9flow.bulk.writers.writer import Writer
from qm9flow.errors import OutputFileError, ResumeError
from qm9flow.files import PART


class Output(Protocol):
    """What a run writes to.

    Attributes:
        done: Up to where an earlier run came.
    """

    done: Journal

    def append(self, rows: Sequence[Sequence[Value]], done: Journal) -> None:
        """Write a chunk.

        Args:
            rows: One value a column.
            done: How far that comes; `size` is filled in.
        """
        ...

    def finish(self) -> None:
        """No more chunks will come."""
        ...

    def close(self) -> None:
        """Let go of the file, complete or not."""
        ...


class StreamOutput:
    """Bytes to a pipe or a terminal, as they come."""

    def __init__(self, stream: IO[bytes], writer: Writer) -> None:
        """Write the head.

        Args:
            stream: Where to.
            writer: Of the format.
        """
        self.done = Journal({})
        self._stream = stream
        self._writer = writer
        self._write(writer.head())

    def append(self, rows: Sequence[Sequence[Value]], done: Journal) -> None:
        """Write a chunk."""
        self._write(self._writer.chunk(rows))
        self.done = done

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """The stream stays open."""

    def _write(self, content: bytes) -> None:
        try:
            self._stream.write(content)
            self._stream.flush()
        except BrokenPipeError:
            raise  # whoever reads has read enough
        except OSError as error:
            raise OutputFileError(f"cannot write the output: {error.strerror}") from error


class FileOutput:
    """A file with a journal.

    Bytes are appended to `NAME.part` and forced to the disk, then the journal `NAME.journal` is
    replaced; a run that goes on cuts off what lies behind the journal's last point. The name
    itself appears when all is there.
    """

    def __init__(
        self, path: Path, writer: Writer, identity: dict[str, Any], *, restart: bool = False
    ) -> None:
        """Begin, or find out where to go on.

        Args:
            path: The output.
            writer: Of its format.
            identity: What must be the same to go on.
            restart: Begin anew, whatever is there.

        Raises:
            OutputFileError: The output exists, cannot be written, or another run writes it.
            ResumeError: What was left belongs to another input, model or other options.
        """
        self.path = path
        self.part = path.with_name(path.name + PART)
        self.journal = path.with_name(path.name + ENDING)
        self._writer = writer
        self._file: IO[bytes] | None = None
        try:
            with self._explained():
                self.done = self._begin(identity, restart)
        except BaseException:
            self.close()
            raise

    def append(self, rows: Sequence[Sequence[Value]], done: Journal) -> None:
        """Write a chunk, then the journal."""
        assert self._file is not None
        content = self._writer.chunk(rows)
        with self._explained():
            self.done = done.moved(size=self._add(content))
            self.done.write(self.journal)

    def finish(self) -> None:
        """Give the output its name."""
        with self._explained():
            if not self.done.is_complete:
                self.done = self.done.moved(is_complete=True)
                self.done.write(self.journal)
            if self._file is not None:
                self._writer.finish(self.part, self.path)
                self.close()
            self.journal.unlink()

    def close(self) -> None:
        """Let go of the file, complete or not."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, identity: dict[str, Any], restart: bool) -> Journal:
        if self.path.is_dir():
            raise OutputFileError(f"{self.path} is a folder: name a file in it")
        if self.path.exists() and not self.path.is_file():
            raise OutputFileError(
                f"{self.path} is a pipe or a device, no file to be replaced: name a file, or send "
                "standard output there"
            )
        if not self.path.parent.is_dir():
            raise OutputFileError(f"there is no folder {self.path.parent}: make it first")
        done = None if restart else read_journal(self.journal)
        if done is None:
            return self._begin_anew(identity, restart)
        changed = difference(done.identity, identity)
        if changed:
            raise ResumeError(
                f"{self.part} was left by another run ({changed}): begin anew with --restart, or "
                "name another output"
            )
        if done.is_complete and self._is_named(done):
            return done
        if self.path.exists() and not done.replaces:
            raise self._exists()
        self._open("r+b")
        assert self._file is not None
        if self.part.stat().st_size < done.size:
            raise ResumeError(f"{self.part} was changed or cut short: begin anew with --restart")
        self._file.truncate(done.size)
        self._file.seek(done.size)
        return done.moved(is_complete=False)  # the input may have grown

    def _is_named(self, done: Journal) -> bool:
        """Whether a complete run was killed with the name given and the journal not yet removed."""
        return self.path.exists() and not (done.replaces and self.part.exists())

    def _begin_anew(self, identity: dict[str, Any], restart: bool) -> Journal:
        if not restart:
            if self.path.exists():
                raise self._exists()
            if self.part.exists():
                raise OutputFileError(
                    f"{self.part} is in the way, and no run of qm9flow says that it is its own: "
                    "remove it, or overwrite it with --restart"
                )
        if self.part.exists():
            self._open("r+b")
        done = Journal(identity, replaces=self.path.exists())
        done.write(self.journal)
        if self._file is None:
            self._open("xb")
        assert self._file is not None
        self._file.truncate(0)
        done = done.moved(size=self._add(self._writer.head()))
        done.write(self.journal)
        return done

    def _open(self, mode: str) -> None:
        # Without a buffer: what did not fit onto a full disk must not be tried again at the end.
        self._file = open(self.part, mode, buffering=0)  # noqa: SIM115 (close() closes it)
        if not _lock(self._file):
            self.close()
            raise OutputFileError(f"another run is writing {self.path}")

    def _add(self, content: bytes) -> int:
        """Write to the disk; the size of the file then."""
        assert self._file is not None
        left = memoryview(content)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())
        return self._file.tell()

    def _exists(self) -> OutputFileError:
        return OutputFileError(
            f"{self.path} exists already: name another output, or replace it with --restart"
        )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = error.strerror or str(error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                what += "; make room, then the same command goes on"
            raise OutputFileError(f"cannot write {self.path}: {what}") from error


def _lock(file: IO[bytes]) -> bool:
    """Hold a file as long as it is open; False if another process holds it."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
