"""Which writer a file needs, by its name or by what the user says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from qm9flow.bulk.columns import Column
from qm9flow.bulk.writers.parquet import ParquetWriter
from qm9flow.bulk.writers.text import GzipWriter, JsonWriter, TableWriter
from qm9flow.bulk.writers.writer import Writer
from qm9flow.errors import ConfigError

OutputFormat = Literal["csv", "tsv", "jsonl", "parquet"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

_BY_SUFFIX: dict[str, OutputFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def format_of(output: Path | None, said: str | None = None) -> tuple[OutputFormat, bool]:
    """A file's format.

    Args:
        output: Its path; None for standard output.
        said: What the user wants; None goes by the suffix, and means CSV for standard output.

    Returns:
        The format, and whether it is gzipped.

    Raises:
        ConfigError: There is no such format, the suffix says nothing, or the two do not go
            together.
    """
    if said is not None and said not in OUTPUT_FORMATS:
        known = ", ".join(OUTPUT_FORMATS)
        raise ConfigError(f"there is no format {said!r} of output; there are {known}")
    if output is None:
        if said == "parquet":
            raise ConfigError("Parquet cannot be written to standard output: name a file")
        return (said or "csv"), False
    is_gzipped = output.suffix.lower() == ".gz"
    suffix = (output.with_suffix("") if is_gzipped else output).suffix.lower()
    found = said or _BY_SUFFIX.get(suffix)
    if found is None:
        raise ConfigError(
            f"{output}: unknown kind of output; known are {', '.join(_BY_SUFFIX)}, all but the "
            "last also with .gz behind; or say what it is to be with --output-format"
        )
    if found == "parquet" and is_gzipped:
        raise ConfigError(f"{output}: Parquet is compressed by itself: leave .gz out")
    return found, is_gzipped


def make_writer(
    kind: OutputFormat, is_gzipped: bool, columns: Sequence[Column], facts: dict[str, Any]
) -> Writer:
    """A writer.

    Args:
        kind: The format.
        is_gzipped: Whether to gzip it.
        columns: Of all rows.
        facts: What a file can say of itself, where the format has room for it.

    Returns:
        The writer.

    Raises:
        DependencyError: A package that the format needs is not installed.
    """
    if kind == "parquet":
        return ParquetWriter(columns, facts)
    plain: Writer
    if kind == "jsonl":
        plain = JsonWriter(columns)
    else:
        plain = TableWriter(columns, "\t" if kind == "tsv" else ",")
    return GzipWriter(plain) if is_gzipped else plain
