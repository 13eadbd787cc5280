"""The part of `qm9flow predict` that predicts a file row by row."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from qm9flow.cli.progress import row_progress
from qm9flow.cli.running import resumable
from qm9flow.cli.show import print_json, remark
from qm9flow.evaluation.text_tables import counted

if TYPE_CHECKING:
    from qm9flow.bulk.run import Summary
    from qm9flow.model import Model

F = TypeVar("F", bound=Callable[..., Any])

_STREAMED = (".csv", ".tsv", ".tab", ".gz")
_OPTIONS = (
    click.option("--output", help="CSV, TSV, JSON lines (.jsonl), all with .gz too, or .parquet."),
    click.option(
        "--format",
        "input_format",
        type=click.Choice(["csv", "tsv", "smi", "sdf", "xyz"]),
        help="What FILE is.  [default: by its suffix]",
    ),
    click.option(
        "--output-format",
        type=click.Choice(["csv", "tsv", "jsonl", "parquet"]),
        help="What the output is to be.  [default: by its suffix; csv on standard output]",
    ),
    click.option(
        "--smiles-column", help="Header of the column of SMILES.  [default: found by its name]"
    ),
    click.option(
        "--chunk",
        type=click.IntRange(1, 100_000),
        help="Rows at a time.  [default: 512 on a CPU, 4096 on a GPU]",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, 1024),
        help="Processes that make geometries.  [default: one a core]",
    ),
    click.option(
        "--restart", is_flag=True, help="Begin anew; replace an output that exists when done."
    ),
)


@dataclass(frozen=True)
class RowOptions:
    """What the command line says of a run.

    Attributes:
        targets: Names of targets, in order.
        geometry: Where coordinates come from; None means the format's default.
        as_json: Whether to print the summary as JSON.
        output: Name of the file; None or `-` is standard output.
        input_format: Of the input; None goes by the suffix.
        output_format: Of the output; None goes by the suffix.
        smiles_column: Header of the column of SMILES; None looks for it.
        chunk: Rows at a time; None fits the device.
        workers: Processes that make geometries; None means one a core.
        restart: Whether to begin anew.
    """

    targets: tuple[str, ...]
    geometry: str | None
    as_json: bool
    output: str | None
    input_format: str | None
    output_format: str | None
    smiles_column: str | None
    chunk: int | None
    workers: int | None
    restart: bool


def options(command: F) -> F:
    """Add the options of this part to a command.

    Args:
        command: The function.

    Returns:
        It, decorated.
    """
    for add in reversed(_OPTIONS):
        command = add(command)
    return command


def is_wanted(files: Sequence[Path], rows: dict[str, Any]) -> bool:
    """Whether a file is to be predicted row by row.

    Args:
        files: Those named.
        rows: Values of the options of this part.

    Returns:
        True with any of these options, for `-`, and for files that only this part reads.
    """
    is_named = any(value is not None and value is not False for value in rows.values())
    return is_named or any(str(path) == "-" or path.suffix.lower() in _STREAMED for path in files)


def open_model(reference: str, tracking_uri: str | None, device: str) -> "Model":
    """A model, with a remark where it is not the one that was asked for.

    Args:
        reference: What users call it.
        tracking_uri: MLflow's store; None means the default.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The open model.
    """
    from qm9flow.model import Model
    from qm9flow.registry.find import find_model

    found = find_model(reference, tracking_uri)
    remark(found.remark)
    return Model(found, device)  # type: ignore[arg-type]


def run(source: Path, said: RowOptions, model: "Model") -> None:
    """Predict a file, say what was done, end with status 1 if all rows were refused.

    Args:
        source: The file, or `-`.
        said: Options.
        model: The open model.
    """
    path = None if said.output in (None, "-") else Path(str(said.output))
    output: Path | IO[bytes] = sys.stdout.buffer if path is None else path
    try:
        with resumable(_goes_on(path)):
            summary = _predict(source, output, said, model)
    except BrokenPipeError:
        # Python would write to the closed pipe once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    if summary.renamed:
        remark(f"named otherwise than usual: {', '.join(summary.renamed)}")
    if said.as_json and path is not None:
        print_json({"output": str(path), **asdict(summary)})
    else:
        remark(_sentence(summary, path))
    if summary.rows and summary.refused == summary.rows:
        sys.exit(1)


def _predict(source: Path, output: Path | IO[bytes], said: RowOptions, model: "Model") -> "Summary":
    with row_progress() as show:
        return model.predict_file(
            source,
            output,
            said.targets,
            input_format=said.input_format,
            output_format=said.output_format,
            smiles_column=said.smiles_column,
            geometry=said.geometry,
            chunk=said.chunk,
            workers=said.workers,
            restart=said.restart,
            progress=show,
        )


def _goes_on(path: Path | None) -> str:
    if path is None:
        return "rows that go to standard output begin anew next time"
    return "the same command goes on, without --restart"


def _sentence(summary: "Summary", path: Path | None) -> str:
    earlier = f" ({summary.resumed:,} of them by earlier runs)" if summary.resumed else ""
    where = "" if path is None else f": {path}"
    return f"{counted(summary.rows, 'row')}{earlier}, {summary.refused:,} with errors{where}"
