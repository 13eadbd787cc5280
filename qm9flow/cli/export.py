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
@tracking_option
@json_option
def command(version: str, output: Path, tracking_uri: str | None, as_json: bool) -> None:
    """Write the bundle of VERSION (a number or an alias; the champion by default) to a folder.

    It holds the ONNX graph, the weights, the configuration and the model card. Its checksum is
    verified.

    \b
    Example:
      qm9flow export champion --output champion/
    """
    from qm9flow.registry.versions import fetch, resolve

    found = resolve(version, tracking_uri)
    folder = fetch(found, output, tracking_uri)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    if as_json:
        print_json({"version": found.number, "folder": str(folder), "files": files})
    else:
        say(f"Wrote {found.label} to {folder}: {', '.join(files)}")
