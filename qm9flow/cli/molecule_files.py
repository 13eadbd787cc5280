"""Molecules of files named on a command line, as the records that a request would hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qm9flow.bulk.readers.formats import HAS_COORDINATES, Source, format_of
from qm9flow.bulk.rows import Row
from qm9flow.bulk.writers.writer import without_surrogates
from qm9flow.errors import EmptyMoleculeError, MoleculeError


@dataclass(frozen=True)
class NamedRecord:
    """One molecule to predict.

    Attributes:
        name: What to call it in the output.
        record: As in an HTTP request, or why there is none.
    """

    name: str
    record: Mapping[str, str] | MoleculeError


def read_file(
    path: Path, said: str | None = None, geometry: str | None = None
) -> list[NamedRecord]:
    """The molecules of a file, as a bulk run would read them.

    Args:
        path: The file.
        said: Its format; None goes by the suffix.
        geometry: `dft` or `approximate`, of no meaning where the file has no coordinates; None
            means the format's default.

    Returns:
        One record a molecule, in order, named as the file names a SMILES, else by the file and
        its place in it; one with an error for a file that holds none.

    Raises:
        ConfigError: The suffix says nothing.
        InputFileError: The file cannot be read.
    """
    kind = format_of(path, said)
    with Source(path, kind, geometry=geometry if kind in HAS_COORDINATES else None) as source:
        rows = list(source.reader.rows())
    if not rows:
        return [NamedRecord(path.name, EmptyMoleculeError("the file holds no molecule"))]
    names = _names(path.name, len(rows))
    if kind == "smi":
        names = [_own_name(row) or name for row, name in zip(rows, names, strict=True)]
    return [NamedRecord(name, row.record) for name, row in zip(names, rows, strict=True)]


def _own_name(row: Row) -> str:
    smiles, name = map(without_surrogates, row.cells)
    return name or smiles


def _names(file: str, count: int) -> Sequence[str]:
    return [file] if count == 1 else [f"{file}:{place}" for place in range(1, count + 1)]
