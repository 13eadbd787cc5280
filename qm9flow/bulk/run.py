"""A bulk run: reads rows, has geometries made, predicts, writes, and tells how far it is."""

from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import qm9flow
from qm9flow.bulk.chunks import Chunk, chunks_of, in_turn
from qm9flow.bulk.columns import Column, ModelName, Value, named, own_columns, own_values
from qm9flow.bulk.journal import Journal
from qm9flow.bulk.meter import Meter, Show
from qm9flow.bulk.output import FileOutput, Output, StreamOutput
from qm9flow.bulk.readers.formats import Source
from qm9flow.bulk.writers.formats import format_of, make_writer
from qm9flow.errors import ConfigError, InferenceError, MoleculeError, OutputFileError
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.inference.probes import PROBES, as_from
from qm9flow.molecules.molecule import Geometry, Structure
from qm9flow.molecules.pool import CONFORMERS, MoleculePool

CHUNK = {"cpu": 512, "cuda": 4096}
"""Rows of a chunk by provider: a GPU needs more molecules of a size to be busy."""

_LOOK_S = 0.5
"""Seconds between looks at how far a chunk is."""

Result = Prediction | MoleculeError


@dataclass(frozen=True)
class Engine:
    """What turns rows into predictions.

    Attributes:
        predictor: The open model.
        model: What to say of it.
        pool: Makes geometries.
    """

    predictor: Predictor
    model: ModelName
    pool: MoleculePool


@dataclass(frozen=True)
class Options:
    """What a run may do differently.

    Attributes:
        targets: Names of targets, in order.
        chunk: Rows of a chunk; None means `CHUNK`.
        output_format: Of the output; None goes by its suffix.
        restart: Begin anew: drop what an interrupted run left, replace an output that exists.
    """

    targets: tuple[str, ...]
    chunk: int | None = None
    output_format: str | None = None
    restart: bool = False


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        rows: Rows of the input, and of the output.
        refused: How many of them have an error.
        resumed: Rows that an earlier run had done.
        renamed: Columns whose names, or those of their family, were taken, as `old -> new`.
    """

    rows: int
    refused: int
    resumed: int
    renamed: tuple[str, ...] = ()


def predict_file(
    source: Source,
    output: Path | IO[bytes],
    engine: Engine,
    options: Options,
    show: Show | None = None,
) -> Summary:
    """Predict each row of a file.

    Args:
        source: The file, open at its first row.
        output: A file, with which a killed run goes on; or a stream.
        engine: Predicts.
        options: Of the run.
        show: Called about twice a second with how far it is.

    Returns:
        What was done.

    Raises:
        ConfigError: An option is wrong.
        InputFileError: The input cannot be read on. What was done stays; with a whole input that
            begins with the same rows the run goes on.
        OutputFileError: The output exists or cannot be written.
        ResumeError: What an interrupted run left belongs to other input, another model or other
            options.
        InferenceError: The model cannot be run at all. What was done stays.
    """
    own = own_columns(options.targets, engine.predictor.level)
    columns = named(source.reader.columns, own)
    to = _open_output(source, output, engine, options, columns)
    resumed = to.done.rows
    try:
        if not to.done.is_complete:
            meter = Meter(source.reader.total, show)
            for chunk, results in _results(source, engine, options, to, meter):
                rows = _rows(chunk, results, options.targets, engine)
                to.append(rows, _moved(to.done, chunk, results))
        to.finish()
    finally:
        to.close()
    names = [*source.reader.columns, *(column.name for column in own)]
    pairs = zip(names, columns, strict=True)
    renamed = tuple(f"{old!r} -> {new.name!r}" for old, new in pairs if old != new.name)
    return Summary(to.done.rows, to.done.refused, resumed, renamed)


def _open_output(
    source: Source,
    output: Path | IO[bytes],
    engine: Engine,
    options: Options,
    columns: Sequence[Column],
) -> Output:
    path = output if isinstance(output, Path) else None
    kind, is_gzipped = format_of(path, options.output_format)
    identity = _identity(source, engine, options) | {"output format": kind}
    writer = make_writer(kind, is_gzipped, columns, identity)
    if not isinstance(output, Path):
        return StreamOutput(output, writer)
    _refuse_same_file(source, output)
    return FileOutput(output, writer, identity, restart=options.restart)


def _identity(source: Source, engine: Engine, options: Options) -> dict[str, Any]:
    """What decides the output beside the rows, in plain values."""
    predictor, model = engine.predictor, engine.model
    return {
        "qm9flow": qm9flow.__version__,
        "model": model.name,
        "version": model.version,
        "bundle": model.digest,
        "provider": predictor.provider,
        "level": predictor.level,
        "targets": list(options.targets),
        "units": {name: predictor.units[name] for name in options.targets},
        "input format": source.format,
        "columns": list(source.reader.columns),
        "geometry": source.geometry or "default",
        "SMILES column": source.smiles_column,
        "conformers": CONFORMERS,
        "chunk": _size(engine, options),
    }


def _size(engine: Engine, options: Options) -> int:
    return options.chunk or CHUNK[engine.predictor.provider]


def _refuse_same_file(source: Source, output: Path) -> None:
    try:
        is_same = not source.lines.is_pipe and output.samefile(source.lines.source)
    except OSError:
        is_same = False
    if is_same:
        raise OutputFileError(f"{output} is the input: name another output")


def _results(
    source: Source, engine: Engine, options: Options, to: Output, meter: Meter
) -> Iterator[tuple[Chunk, list[Result]]]:
    """Each chunk that is not done yet, with its predictions."""
    rows = to.done.rows
    meter.tell(rows)
    for chunk in in_turn(chunks_of(source, _size(engine, options), to.done), engine.pool):
        while not wait([chunk.structures], _LOOK_S).done:
            meter.tell(rows + chunk.built)
        yield chunk, _predicted(engine.predictor, chunk.structures.result(), options.targets)
        rows += len(chunk.rows)
        meter.tell(rows)


def _predicted(
    predictor: Predictor, structures: Sequence[Structure | MoleculeError], targets: Sequence[str]
) -> list[Result]:
    """Results of a chunk; where the network fails on it, of each molecule by itself."""
    try:
        return predictor.predict_each(structures, targets)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, one row must not end the run
        if len(structures) > 1:
            return [_predicted(predictor, [item], targets)[0] for item in structures]
        (alone,) = structures
        if isinstance(alone, MoleculeError):
            return [alone]
        _prove(predictor, alone.geometry, targets)
        return [MoleculeError(_why(error))]


def _prove(predictor: Predictor, source: Geometry, targets: Sequence[str]) -> None:
    """Whether the model still runs: if not, a failure is not the molecule's."""
    probe = PROBES[0]
    try:
        predictor.predict_each([as_from(probe, source)], targets)
    except Exception as error:
        raise InferenceError(
            f"the model cannot be run any more, not even on {probe.name}: {_why(error)}; "
            "rows that were done are kept"
        ) from error


def _why(error: Exception) -> str:
    """Errors of the runtime are sentences; others are nobody's words."""
    return str(error) if isinstance(error, InferenceError) else f"the network failed: {error!r}"


def _rows(
    chunk: Chunk, results: Sequence[Result], targets: Sequence[str], engine: Engine
) -> list[list[Value]]:
    level, model = engine.predictor.level, engine.model
    return [
        [*row.cells, *own_values(result, targets, level, model, row.remarks)]
        for row, result in zip(chunk.rows, results, strict=True)
    ]


def _moved(done: Journal, chunk: Chunk, results: Sequence[Result]) -> Journal:
    refused = sum(isinstance(result, MoleculeError) for result in results)
    return done.moved(
        rows=done.rows + len(results), refused=done.refused + refused, digest=chunk.digest
    )
