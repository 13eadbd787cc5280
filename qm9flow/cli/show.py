"""What commands print."""

import json
from typing import Any

import click


def say(text: str) -> None:
    """One line or table for people, on standard output.

    Args:
        text: What to print.
    """
    click.echo(text)


def print_json(value: Any) -> None:
    """One JSON document on standard output.

    Args:
        value: Plain JSON values.
    """
    click.echo(json.dumps(value, indent=2, allow_nan=False))
