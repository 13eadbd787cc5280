"""`qm9flow predict`: values for molecules, the same that the service gives."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qm9flow import properties
from qm9flow.cli import predict_rows
from qm9flow.cli.params import json_option, tracking_option
from qm9flow.cli.progress import progress_bar
from qm9flow.cli.show import print_json, say
from qm9flow.errors import ConfigError, MoleculeError

if TYPE_CHECKING:
    from qm9flow.cli.molecule_files import NamedRecord
    from qm9flow.inference.prediction import Prediction
    from qm9flow.inference.predictor import Predictor
    from qm9flow.model import Model

_PATH = click.Path(path_type=Path)
_COLUMN = 18


@click.command()
@click.argument("files", nargs=-1, type=_PATH)
@click.option("--smiles", multiple=True, help="A SMILES; may be given several times.")
@click.option("--xyz", multiple=True, type=_PATH, help="An XYZ file; several times too.")
@click.option("--sdf", multiple=True, type=_PATH, help="An SDF or mol file; several times too.")
@click.option(
    "--geometry",
    type=click.Choice(["dft", "approximate"]),
    help="Where the files' coordinates come from.  [default: dft for XYZ, approximate for SDF]",
)
@click.option(
    "--model",
    default="champion",
    show_default=True,
    help="An alias, a version's number, a bundle's folder, or pretrained.",
)
@click.option("--targets", help="Names of targets, with commas between.  [default: all 19]")
@predict_rows.options
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="cuda requires a GPU.",
)
@tracking_option
@json_option
def command(
    *,
    files: tuple[Path, ...],
    smiles: tuple[str, ...],
    xyz: tuple[Path, ...],
    sdf: tuple[Path, ...],
    geometry: str | None,
    model: str,
    targets: str | None,
    device: str,
    tracking_uri: str | None,
    as_json: bool,
    **rows: Any,
) -> None:
    """Predict molecules with a registered model; where none is, with the pretrained one.

    FILES are XYZ (.xyz), SDF or mol (.sdf, .mol), or SMILES, one a line (.smi). Molecules come in
    the order: --smiles, --xyz, --sdf, FILES.

    With --output, one FILE of any size is predicted row by row in bounded memory: CSV or TSV with
    a column of SMILES, .smi, .sdf, .xyz, .extxyz, each also gzipped, or - for standard input. CSV,
    TSV, gzipped files and - go to standard output without it. Rows keep their order and columns;
    what the input has a column of already, such as gap, is predicted into qm9flow_gap.
    A run that was stopped or killed goes on by the same command, to the same bytes; with standard
    input, if that begins with the same rows again.

    A molecule that is refused has its error in the output. The exit status is 1 if all were
    refused, else 0.

    \b
    Example:
      qm9flow predict --smiles CCO --xyz water.xyz --targets gap,homo,u0_atom
      qm9flow predict molecules.csv --output predictions.csv
      qm9flow predict molecules.sdf.gz --output predictions.parquet --targets gap
      zcat big.smi.gz | qm9flow predict - --format smi --output predictions.jsonl
    """
    wanted = _targets(targets)
    if predict_rows.is_wanted(files, rows):
        if smiles or xyz or sdf or len(files) != 1:
            raise ConfigError(
                "tables, gzipped files, standard input, and whatever is given --output, --format, "
                "--smiles-column, --chunk, --workers or --restart, are predicted row by row, from "
                "one FILE at a time and without --smiles, --xyz and --sdf: run it by itself"
            )
        said = predict_rows.RowOptions(**rows, targets=wanted, geometry=geometry, as_json=as_json)
        predict_rows.run(files[0], said, predict_rows.open_model(model, tracking_uri, device))
    else:
        named = _read(smiles, {"xyz": xyz, "sdf": sdf, None: files}, geometry)
        opened = predict_rows.open_model(model, tracking_uri, device)
        results = _predict(opened.predictor, named, wanted)
        if as_json:
            print_json(_answer(opened, wanted, results))
        else:
            say("\n".join(_report(opened, [item.name for item in named], wanted, results)))
        if all(isinstance(result, MoleculeError) for result in results):
            sys.exit(1)


def _targets(names: str | None) -> tuple[str, ...]:
    if names is None:
        return properties.TARGETS
    from qm9flow.molecules.given import wanted_targets

    return wanted_targets([name.strip() for name in names.split(",") if name.strip()])


def _read(
    smiles: Sequence[str], files: Mapping[str | None, Sequence[Path]], geometry: str | None
) -> "list[NamedRecord]":
    """All molecules, in order; files by their format, under None by their suffix."""
    from qm9flow.cli.molecule_files import NamedRecord, read_file

    named = [NamedRecord(text, {"smiles": text}) for text in smiles]
    for said, paths in files.items():
        for path in paths:
            named += read_file(path, said, geometry)
    if not named:
        raise ConfigError("no molecule given: use --smiles, --xyz, --sdf, or name files")
    return named


def _predict(
    predictor: "Predictor", named: "Sequence[NamedRecord]", targets: tuple[str, ...]
) -> "list[Prediction | MoleculeError]":
    from qm9flow.molecules.pool import MoleculePool
    from qm9flow.molecules.records import from_records

    with MoleculePool() as pool, progress_bar() as progress:
        molecules = from_records([item.record for item in named], pool, progress=progress)
    return predictor.predict_each(molecules, targets)


def _answer(
    model: "Model", targets: tuple[str, ...], results: "Sequence[Prediction | MoleculeError]"
) -> dict[str, Any]:
    """What the service answers."""
    from qm9flow.inference.prediction import entry

    return {
        "model": {
            "name": model.name,
            "version": model.version,
            "alias": model.alias,
            "provider": model.device,
        },
        "units": {name: model.units[name] for name in targets},
        "level": model.level,
        "results": [entry(result) for result in results],
    }


def _report(
    model: "Model",
    names: Sequence[str],
    targets: tuple[str, ...],
    results: "Sequence[Prediction | MoleculeError]",
) -> list[str]:
    """A target a line, a molecule a column, as many columns as the terminal holds."""
    version = "" if model.version is None else f" version {model.version}"
    alias = f" ({model.alias})" if model.alias else ""
    lines = [f"{model.name}{version}{alias} on {model.device}"]
    level = model.level
    if level is not None and any(_has_interval(result) for result in results):
        lines.append(f"+-: the true value lies inside for {level:.0%} of molecules like QM9's")
    good = [
        (f"{place} {name}", result)
        for place, (name, result) in enumerate(zip(names, results, strict=True), start=1)
        if not isinstance(result, MoleculeError)
    ]
    width = shutil.get_terminal_size((100, 24)).columns
    columns = max(1, (width - 24) // (_COLUMN + 2))
    for start in range(0, len(good), columns):
        lines += ["", *_table(good[start : start + columns], targets)]
    return [*lines, *_remarks(names, results)]


def _has_interval(result: "Prediction | MoleculeError") -> bool:
    return not isinstance(result, MoleculeError) and any(result.intervals.values())


def _table(good: "Sequence[tuple[str, Prediction]]", targets: tuple[str, ...]) -> list[str]:
    heads = "".join(f"  {_short(label):>{_COLUMN}}" for label, _ in good)
    lines = [f"{'target':10}{'unit':13}{heads}"]
    for name in targets:
        cells = [_number(prediction, name) for _, prediction in good]
        row = "".join(f"  {cell:>{_COLUMN}}" for cell in cells)
        lines.append(f"{name:10}{properties.get(name).unit:13}{row}")
    return lines


def _remarks(names: Sequence[str], results: "Sequence[Prediction | MoleculeError]") -> list[str]:
    """Warnings, each once with the molecules it is about, and errors."""
    about: dict[str, list[str]] = {}
    errors = []
    for place, (name, result) in enumerate(zip(names, results, strict=True), start=1):
        if isinstance(result, MoleculeError):
            errors.append(f"Error: {place} {name}: {result} ({result.code})")
            continue
        for warning in result.warnings:
            about.setdefault(warning, []).append(str(place))
    warnings = [f"Warning: {', '.join(places)}: {text}" for text, places in about.items()]
    remarks = [*warnings, *errors]
    return ["", *remarks] if remarks else []


def _number(prediction: "Prediction", target: str) -> str:
    """A value, and how far it may be off where that is known."""
    value, ends = prediction.values[target], prediction.intervals[target]
    if value is None:
        return "-"
    return f"{value:.4f}" if ends is None else f"{value:.4f} +- {ends[1] - value:.2g}"


def _short(label: str) -> str:
    return label if len(label) <= _COLUMN else f"{label[: _COLUMN - 3]}..."
