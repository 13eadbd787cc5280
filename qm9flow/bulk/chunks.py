"""Rows cut into chunks, and geometries for them, some chunks ahead of whoever predicts.

Chunks depend on the rows alone, and a run goes on at the end of a chunk: so each chunk is the same
whenever it is computed, and so are its numbers to the last bit.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from qm9flow.bulk.journal import Journal
from qm9flow.bulk.readers.formats import Source
from qm9flow.bulk.rows import Row
from qm9flow.errors import BulkError, MoleculeError, ResumeError
from qm9flow.molecules.molecule import Structure
from qm9flow.molecules.pool import MoleculePool
from qm9flow.molecules.records import from_records

MAX_CHARACTERS = 8_000_000
"""A chunk of fewer rows ends here, so that long rows cannot fill the memory."""

AHEAD = 2
"""Chunks whose geometries are made while one is predicted. With one, processes would idle until
the slowest molecule of it is done."""


@dataclass
class Chunk:
    """Rows, and what is known of them while they are worked on.

    Attributes:
        rows: At least one.
        digest: SHA-256 of all rows up to its end, in hexadecimal.
        built: Rows that have a geometry or an error so far.
        structures: Their molecules, or why there are none.
    """

    rows: list[Row]
    digest: str = ""
    built: int = 0
    structures: "Future[list[Structure | MoleculeError]]" = field(default_factory=Future)

    def note(self, what: str, done: int, total: int) -> None:
        """Count molecules that have their geometry; called from another thread.

        Args:
            what: Is being done.
            done: Of those that need work.
            total: Of those that need work.
        """
        self.built = done + len(self.rows) - total


def chunks_of(source: Source, size: int, done: Journal) -> Iterator[Chunk]:
    """The rows of a file that are not done yet.

    Args:
        source: The file, at its first row.
        size: Rows of a chunk.
        done: Up to where an earlier run came.

    Yields:
        Chunks, in order, read when asked for; the first is a short one where the file has grown
        behind a last chunk that was not full.

    Raises:
        InputFileError: The file cannot be read on.
        ResumeError: The rows that are done are not those of this file.
    """
    digest, rows = hashlib.sha256(), 0
    for cut in _cut(source, size):
        left = []
        for row in cut:
            digest.update(repr((row.cells, row.record)).encode("utf-8", "surrogatepass"))
            rows += 1
            if rows > done.rows:
                left.append(row)
            elif rows == done.rows and digest.hexdigest() != done.digest:
                raise _other_input(source.name, done.rows)
        if left:
            yield Chunk(left, digest.hexdigest())
    if rows < done.rows:
        raise _other_input(source.name, done.rows)


def in_turn(chunks: Iterator[Chunk], pool: MoleculePool) -> Iterator[Chunk]:
    """Have geometries made for chunks, with `AHEAD` of them under way behind the one given.

    Args:
        chunks: In order.
        pool: Makes geometries; who closes it ends what is under way.

    Yields:
        The same chunks, whose `structures` may not be there yet.

    Raises:
        BulkError: What `chunks` raised, once all chunks before it were given.
    """
    failure: BulkError | None = None
    waiting: deque[Chunk] = deque()
    threads = ThreadPoolExecutor(AHEAD + 1, thread_name_prefix="chunks")
    try:
        while True:
            while failure is None and len(waiting) <= AHEAD:
                try:
                    chunk = next(chunks, None)
                except BulkError as error:
                    failure = error
                    break
                if chunk is None:
                    break
                chunk.structures = threads.submit(_build, chunk, pool)
                waiting.append(chunk)
            if not waiting:
                break
            yield waiting.popleft()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    if failure is not None:
        raise failure


def _cut(source: Source, size: int) -> Iterator[list[Row]]:
    rows: list[Row] = []
    characters = 0
    for row in source.reader.rows():
        rows.append(row)
        characters += row.characters
        if len(rows) == size or characters > MAX_CHARACTERS:
            yield rows
            rows, characters = [], 0
    if rows:
        yield rows


def _build(chunk: Chunk, pool: MoleculePool) -> list[Structure | MoleculeError]:
    return from_records([row.record for row in chunk.rows], pool, progress=chunk.note)


def _other_input(name: str, rows: int) -> ResumeError:
    return ResumeError(
        f"the first {rows:,} rows of {name} are not those that the interrupted run predicted: "
        "begin anew with --restart, or name another output"
    )
