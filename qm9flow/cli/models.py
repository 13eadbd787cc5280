"""`qm9flow models`: what is registered."""

from typing import TYPE_CHECKING

import click

from qm9flow import properties
from qm9flow.cli.params import json_option, tracking_option
from qm9flow.cli.show import print_json, say

if TYPE_CHECKING:
    from qm9flow.registry.versions import Version

SHOWN = ("mu", "alpha", "gap", "u0")
"""Targets whose test error is in the table; `--json` has all."""


@click.command()
@tracking_option
@json_option
def command(tracking_uri: str | None, as_json: bool) -> None:
    """List registered versions: aliases, validation score, test error.

    The score is the mean over the learned targets of MAE / standard deviation of the version's own
    training molecules, on validation molecules; lower is better. The gate divides both versions'
    errors by the champion's.

    \b
    Example:
      qm9flow models
      qm9flow models --json
    """
    from qm9flow.registry import pretrained
    from qm9flow.registry.client import START_HINT
    from qm9flow.registry.versions import list_versions

    versions = list_versions(tracking_uri)
    if as_json:
        print_json([version.to_dict() for version in versions])
    elif versions:
        say(table(versions))
    else:
        say(f"No model is registered yet; {START_HINT}.")
        if pretrained.is_there():
            say("Until then, predict and serve use the pretrained one that comes with qm9flow.")


def table(versions: "list[Version]") -> str:
    """Versions as lines for people.

    Args:
        versions: In the order to show.

    Returns:
        A head and one line a version.
    """
    units = [f"{name}/{properties.get(name).unit}" for name in SHOWN]
    rows = [["version", "aliases", "val score", *(f"test {unit}" for unit in units), "created"]]
    for version in versions:
        mae = version.mae("test")
        rows.append(
            [
                str(version.number),
                ", ".join(version.aliases) or "-",
                f"{version.score:.5f}",
                *(f"{mae[name]:.4g}" if name in mae else "-" for name in SHOWN),
                version.created.strftime("%Y-%m-%d %H:%M"),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
