"""`qm9flow export`: a registered version's bundle, as a folder."""

from pathlib import Path

import click

from qm9flow.cli.params import json_option, tracking_option
from qm9flow.cli.show import print_json, say


@click.command()
@click.argument("version", default="champion")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder to write; new, empty, or holding this very bundle.",
)
@click.option(
    "--evidence",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the validation errors that the gate compares, to this .npz file.",
)
@click.option(
    "--curves",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the metrics of each epoch of its training, to this .csv file.",
)
@tracking_option
@json_option
def command(
    *,
    version: str,
    output: Path,
    evidence: Path | None,
    curves: Path | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Write the bundle of VERSION (a number or an alias; the champion by default) to a folder.

    It holds the ONNX graph, the weights, the configuration and the model card. Its checksum is
    verified. `pretrained` is the model that comes with qm9flow.

    \b
    Example:
      qm9flow export champion --output champion/
      qm9flow export pretrained --output pretrained/
      qm9flow export 3 --output three/ --evidence three.npz --curves three.csv
    """
    from qm9flow.registry import pretrained

    if version == pretrained.NAME:
        number, label = None, f"the {pretrained.NAME} model"
        folder = pretrained.write(output, evidence, curves)
    else:
        number, label, folder = _fetch(version, output, evidence, curves, tracking_uri)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    if as_json:
        written = {"folder": str(folder), "files": files}
        beside = {"evidence": evidence, "curves": curves}
        named = {name: None if path is None else str(path) for name, path in beside.items()}
        print_json({"version": number, **written, **named})
    else:
        say(f"Wrote {label} to {folder}: {', '.join(files)}")
        if evidence is not None:
            say(f"Wrote its validation errors to {evidence}")
        if curves is not None:
            say(f"Wrote the curves of its training to {curves}")


def _fetch(
    version: str,
    output: Path,
    evidence: Path | None,
    curves: Path | None,
    tracking_uri: str | None,
) -> tuple[int, str, Path]:
    """The number, the label and the written folder of a version of the registry."""
    from qm9flow.registry.client import connect
    from qm9flow.registry.versions import fetch, fetch_evidence, resolve
    from qm9flow.tracking.curves import fetch_curves, write_curves

    found = resolve(version, tracking_uri)
    # Before anything is written: a run that people made may hold no training.
    epochs = fetch_curves(connect(tracking_uri).uri, found.run_id) if curves else None
    folder = fetch(found, output, tracking_uri)
    if evidence is not None:
        fetch_evidence(found, evidence, tracking_uri)
    if epochs is not None and curves is not None:
        write_curves(epochs, curves)
    return found.number, found.label, folder
