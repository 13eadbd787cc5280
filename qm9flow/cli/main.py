"""The command `qm9flow`: finds a subcommand, loads its module only then.

Each command lives in a module of its own and is called `command` there, so that `--help` loads
neither torch nor mlflow.
"""

import importlib
import logging
import os
import sys
from typing import NoReturn

import click

import qm9flow
from qm9flow.cli import extras
from qm9flow.errors import Qm9FlowError

OVERVIEW: dict[str, dict[str, str]] = {
    "Train": {
        "data": "Prepare QM9, once, and describe it.",
        "study": "Search for the best network, train it to the end, register it.",
        "train": "Train one network, or repeat a recorded training.",
        "report": "Write a study's report: one page with all of its figures.",
    },
    "Judge": {
        "models": "List registered versions with their aliases and errors.",
        "evaluate": "Show where a model errs: by target, size, element, molecule.",
        "promote": "Make a version champion if it passes the gate.",
        "rollback": "Make the previous champion champion again.",
    },
    "Use": {
        "predict": "Predict molecules: SMILES, XYZ or SDF to values with units.",
        "serve": "Serve a model over HTTP.",
        "export": "Write a version to a folder: ONNX graph, weights, card.",
    },
    "Mend": {
        "doctor": "Find out what is wrong, and mend what can be.",
    },
}
"""Commands by what they are for, each with its line (so that the overview loads none)."""
COMMANDS = {name: f"qm9flow.cli.{name}" for lines in OVERVIEW.values() for name in lines}
"""Each command's module."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, from the table above instead of from the modules."""
        wide = max(map(len, COMMANDS))  # one column for all sections
        for title, lines in OVERVIEW.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(wide), line) for name, line in lines.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Say more; twice for debugging.")
@click.version_option(qm9flow.__version__, prog_name="qm9flow")
def cli(verbose: int) -> None:
    """Graph neural networks for QM9, from its tables to a served model.

    \b
    Example:
      qm9flow study run --n-trials 12 --train-size 4000 --final-minutes 3
      qm9flow predict --smiles CCO
    """
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)  # a log file may ask for more than the terminal shows


def main() -> None:
    """Run the command line; an error made on purpose is a message and exit status 1."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # MLflow draws its own bars for every file it copies, terminal or not.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # It also tells of every database that it makes.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        cli()
    except Qm9FlowError as error:
        _end(error)
    except ModuleNotFoundError as error:
        explained = extras.explained(error)
        if explained is None:
            raise
        _end(explained)


def _end(error: Qm9FlowError) -> NoReturn:
    click.echo(f"Error: {error}", err=True)
    sys.exit(1)
