"""`qm9flow rollback`: make the previous champion champion again."""

import click

from qm9flow.cli.params import json_option, tracking_option
from qm9flow.cli.show import print_json, say


@click.command()
@tracking_option
@json_option
def command(tracking_uri: str | None, as_json: bool) -> None:
    """Make the previous champion champion again; the present one becomes previous.

    \b
    Example:
      qm9flow rollback
    """
    from qm9flow.registry.aliases import rollback

    champion = rollback(tracking_uri)
    if as_json:
        print_json(champion.to_dict())
    else:
        say(f"{champion.label.capitalize()} is champion again.")
