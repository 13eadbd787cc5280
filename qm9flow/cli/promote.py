"""`qm9flow promote`: make a version champion, if it passes the gate."""

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from qm9flow.cli.params import json_option, tracking_option
from qm9flow.cli.show import print_json, say

if TYPE_CHECKING:
    from qm9flow.registry.aliases import Promotion


@click.command()
@click.argument("version")
@click.option("--force", is_flag=True, help="Make it champion whatever the gate says.")
@tracking_option
@json_option
def command(version: str, force: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Make VERSION champion, if it passes the gate.

    VERSION is a number or an alias. It passes if it was trained on the champion's data, its
    exported graph gives the network's numbers, and a paired bootstrap on validation molecules
    shows it better than the champion. Otherwise it becomes challenger, and the exit status is 1.

    \b
    Example:
      qm9flow promote 3
      qm9flow promote challenger --force
    """
    from qm9flow.registry.aliases import promote
    from qm9flow.registry.versions import resolve

    promotion = promote(resolve(version, tracking_uri), force, tracking_uri)
    if as_json:
        print_json(
            {
                "version": promotion.version.number,
                "alias": promotion.alias,
                "is_forced": promotion.is_forced,
                "decision": asdict(promotion.decision),
            }
        )
    else:
        say(sentence(promotion))
    if promotion.alias != "champion":
        raise click.exceptions.Exit(1)


def sentence(promotion: "Promotion") -> str:
    """What became of the version and why, for people.

    Args:
        promotion: What `promote` gave.

    Returns:
        One line.
    """
    label = promotion.version.label.capitalize()
    figure = promotion.decision.figure
    if promotion.is_forced:
        return f"{label} is champion, against the gate: {figure}"
    if promotion.alias == "champion":
        return f"{label} is champion: {figure}"
    return f"{label} does not pass the gate and is challenger: {figure}"
