"""Which reader a file needs, by its name or by what the user says."""

from pathlib import Path
from typing import IO, Literal, get_args

from qm9flow.bulk.readers.lines import STDIN, Lines
from qm9flow.bulk.readers.sdf import SdfReader
from qm9flow.bulk.readers.smi import SmilesReader
from qm9flow.bulk.readers.tables import TableReader
from qm9flow.bulk.readers.xyz import XyzReader
from qm9flow.bulk.rows import Reader
from qm9flow.errors import ConfigError, InputFileError
from qm9flow.molecules.given import shown

InputFormat = Literal["csv", "tsv", "smi", "sdf", "xyz"]
INPUT_FORMATS: tuple[InputFormat, ...] = get_args(InputFormat)
HAS_COORDINATES: tuple[InputFormat, ...] = ("sdf", "xyz")

_BY_SUFFIX: dict[str, InputFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".smi": "smi",
    ".smiles": "smi",
    ".ism": "smi",
    ".sdf": "sdf",
    ".sd": "sdf",
    ".mol": "sdf",
    ".xyz": "xyz",
    ".extxyz": "xyz",
}


def format_of(source: Path | str, said: str | None = None) -> InputFormat:
    """A file's format.

    Args:
        source: Its path, or `-` for standard input.
        said: What the user says it is; None goes by the suffix, `.gz` apart.

    Returns:
        The format.

    Raises:
        ConfigError: There is no such format, or the suffix says nothing.
    """
    if said is not None:
        if said not in INPUT_FORMATS:
            known = ", ".join(INPUT_FORMATS)
            raise ConfigError(f"there is no format {said!r} of input; there are {known}")
        return said
    if str(source) == STDIN:
        raise ConfigError(
            f"say what standard input holds: --format, one of {', '.join(INPUT_FORMATS)}"
        )
    path = Path(source)
    path = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    found = _BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        raise ConfigError(
            f"{source}: unknown kind of file; known are {', '.join(_BY_SUFFIX)}, also with .gz "
            "behind; or say what it is with --format, --xyz or --sdf"
        )
    return found


class Source:
    """An open file of molecules. A context manager.

    Attributes:
        name: What to call it in messages.
        format: Its format.
        geometry: Where its coordinates come from, as the user says.
        lines: Its lines.
        reader: Its rows.
        smiles_column: Header of the column of SMILES; None where there are no headers.
    """

    def __init__(
        self,
        source: Path | str,
        said: str | None = None,
        *,
        smiles_column: str | None = None,
        geometry: str | None = None,
        stdin: IO[bytes] | None = None,
    ) -> None:
        """Open a file, find its columns and count its rows.

        A file is read once for that, which is short beside predicting it, and finds out whether it
        is whole; a pipe's rows are not counted.

        Args:
            source: Its path, or `-` for standard input.
            said: Its format; None goes by the suffix.
            smiles_column: Header of a table's column of SMILES; None looks for it.
            geometry: `dft` or `approximate`, for formats with coordinates; None means the
                format's default.
            stdin: What `-` means; None is the process's own.

        Raises:
            ConfigError: The format is unknown, or has no use for an option.
            InputFileError: The file cannot be read, or is not what it is said to be.
        """
        self.format = format_of(source, said)
        self.geometry = geometry
        if smiles_column is not None and self.format not in ("csv", "tsv"):
            raise ConfigError(f"--smiles-column is for CSV and TSV; {source} is {self.format}")
        if geometry is not None and self.format not in HAS_COORDINATES:
            raise ConfigError(f"--geometry is for XYZ and SDF; {source} is {self.format}")
        if geometry not in (None, "dft", "approximate"):
            raise ConfigError(f"geometry must be dft or approximate, got {shown(geometry)}")
        self.lines = Lines(source, stdin)
        self.name = self.lines.name
        try:
            self.reader = _reader(self.lines, self.format, smiles_column, geometry)
        except InputFileError:
            self.lines.close()
            raise
        self.smiles_column = (
            self.reader.smiles_column if isinstance(self.reader, TableReader) else None
        )

    def __enter__(self) -> "Source":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.lines.close()


def _reader(
    lines: Lines, kind: InputFormat, smiles_column: str | None, geometry: str | None
) -> Reader:
    if kind == "sdf":
        return SdfReader(lines, geometry)
    if kind == "xyz":
        return XyzReader(lines, geometry)

    def make(lines: Lines) -> Reader:
        if kind == "smi":
            return SmilesReader(lines)
        return TableReader(lines, "\t" if kind == "tsv" else None, smiles_column)

    reader = make(lines)
    if not lines.is_pipe:
        with Lines(lines.source) as first_time:
            reader.total = sum(1 for _ in make(first_time).rows())
    return reader
