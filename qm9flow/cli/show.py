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


def remark(text: str | None) -> None:
    """A line for people that is no result, on standard error.

    Args:
        text: What to print; None prints nothing.
    """
    if text is not None:
        click.echo(text, err=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output.

    Args:
        value: Plain JSON values.
    """
    click.echo(json.dumps(value, indent=2, allow_nan=False))
