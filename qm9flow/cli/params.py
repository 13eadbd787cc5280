"""Options that the commands share, and how their values reach a configuration.

`mlflow run` hands every parameter over, empty where nobody set it: an empty value means the
default. Precedence is defaults < file < options, in whatever order they stand.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from qm9flow import config, locations
from qm9flow.errors import ConfigError

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
gradient_option = option(
    "--gradient-stop",
    click.Choice(get_args(config.GradientStop)),
    "Whether vanishing, exploding or dead gradients end a training, or are only noted.  "
    "[default: on]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tracking_option = option(
    "--tracking-uri",
    str,
    "MLflow's store.  [default: MLFLOW_TRACKING_URI, else mlflow.db in the current folder]",
)


def refuse_recorded_password(name: str, url: str | None) -> None:
    """`mlflow run` puts every parameter on record, before any code of ours can mask it.

    Args:
        name: Of the option.
        url: What was given for it, None where nothing was.

    Raises:
        ConfigError: It holds a password, and comes from `mlflow run`.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if url is None or run_id is None or locations.without_password(url) == url:
        return
    raise ConfigError(
        f"`mlflow run` has put the password in {name} on record, in the parameters of run "
        f"{run_id}: delete that run, and remove it for good with `mlflow gc --run-ids "
        f"{run_id}`. Then leave the password out: PostgreSQL's client takes it from PGPASSWORD or "
        f"~/.pgpass; or write {name} into the file that -P config= names"
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
