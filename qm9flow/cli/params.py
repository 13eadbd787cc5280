"""Options that the commands share, and how their values reach a configuration.

`mlflow run` hands every parameter over, empty where nobody set it: an empty value means the
default. Precedence is defaults < file < options, in whatever order they stand.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from qm9flow import config, locations

F = TypeVar("F", bound=Callable[..., Any])


class OrEmpty(click.ParamType):
    """A value of some type, or an empty text, which means that nothing was said."""

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """None for an empty text, else what the inner type makes of it."""
        if value is None or value == "":
            return None
        return self.inner.convert(value, param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The inner type's."""
        return self.inner.get_metavar(param, ctx) or self.inner.name.upper()


def option(name: str, kind: click.ParamType | type, text: str) -> Callable[[F], F]:
    """An option whose empty value means the default.

    Args:
        name: With dashes: `--n-trials`.
        kind: A click type.
        text: Its line in `--help`.

    Returns:
        The decorator.
    """
    inner = click.types.convert_type(kind)
    return click.option(name, type=OrEmpty(inner), default=None, help=text)


seed_option = option(
    "--seed-pretrained",
    bool,
    "Whether the pretrained model is registered first where none is, to be beaten.  "
    "[default: true]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tracking_option = option(
    "--tracking-uri",
    str,
    "MLflow's store.  [default: MLFLOW_TRACKING_URI, else mlflow.db in the current folder]",
)


def merged(path: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """What a file says, overridden by the options that were given.

    Args:
        path: A TOML or JSON file, or None.
        options: By field name; None where nothing was said.

    Returns:
        Values for `config.from_dict`.

    Raises:
        ConfigError: The file cannot be read.
    """
    values = config.load_file(locations.callers_path(path)) if path else {}
    return values | {name: value for name, value in options.items() if value is not None}
