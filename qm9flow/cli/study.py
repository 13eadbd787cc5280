"""`qm9flow study`: run, list, show, resume, delete."""

import sys
from pathlib import Path
from typing import Any, get_args

import click

from qm9flow import config
from qm9flow.cli.params import (
    gradient_option,
    json_option,
    merged,
    option,
    refuse_recorded_password,
    seed_option,
)
from qm9flow.cli.running import INTERRUPTED, foreground
from qm9flow.cli.show import print_json, say


@click.group()
def command() -> None:
    """Search for the best network; list, show, resume and delete studies.

    \b
    Example:
      qm9flow study run --n-trials 12 --train-size 4000 --final-minutes 3
      qm9flow study list
    """


STUDY_OPTIONS = [
    option("--n-trials", int, "Trials in total, over all starts.  [default: 20]"),
    option("--preset", str, "Search space: seed or modern.  [default: seed]"),
    option("--sampler", click.Choice(["tpe", "random", "grid"]), "[default: tpe]"),
    option("--train-size", int, "Training molecules of a trial.  [default: what fits]"),
    option("--val-size", int, "Validation molecules of a trial.  [default: 2000]"),
    option("--max-epochs", int, "Epochs of a trial, at most.  [default: 9]"),
    option("--trial-minutes", float, "Minutes of a trial, at most.  [default: what fits]"),
    option(
        "--halving",
        click.Choice(get_args(config.Halving)),
        "Stop trials outside the best third at rungs.  [default: epochs]",
    ),
    gradient_option,
    option(
        "--finalists",
        int,
        "Best trials trained further before one is chosen.  [default: what fits]",
    ),
    option(
        "--final-minutes",
        float,
        "Final training of the best, at most; finals are shorter.  [default: 10 to 30]",
    ),
    option("--split", click.Choice(["seed", "standard"]), "[default: seed]"),
    option(
        "--n-jobs", int, "Trials at a time; 1 runs them in this process.  [default: one a core]"
    ),
    option(
        "--gpus-per-trial", float, "Share of a GPU that a trial takes.  [default: GPUs / n-jobs]"
    ),
    option("--study-name", str, "A name of yours; an existing study is resumed."),
    option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]"),
    option("--seed", int, "Of sampling, weights and batches.  [default: 0]"),
    option("--timeout-minutes", float, "No new trial after this time.  [default: no limit]"),
    option("--device", click.Choice(["auto", "cpu", "cuda"]), "[default: auto]"),
    option("--ray-address", str, "A running Ray cluster, or auto.  [default: none]"),
    option("--keep-models", int, "Keep models of the best N trials only.  [default: all]"),
    seed_option,
]


def study_options(function: Any) -> Any:
    """All fields of `StudyConfig` as options, in their order."""
    for decorate in reversed(STUDY_OPTIONS):
        function = decorate(function)
    return function


@command.command(short_help="Search, train the best network to the end, register it.")
@study_options
@option("--config", click.Path(path_type=Path, dir_okay=False), "TOML or JSON file of options.")
def run(**options: Any) -> None:
    """Run a study, train its best network to the end, release and register it.

    Started again under its name, it goes on where it was. The study's run gets the test errors of
    the registered version, as `qm9flow evaluate` gives them, under `evaluation/`.

    \b
    Example:
      qm9flow study run --n-trials 12 --train-size 4000 --final-minutes 3
    """
    from qm9flow.workflows.fitting import FITTED
    from qm9flow.workflows.study import run_study

    path = options.pop("config")
    refuse_recorded_password("storage", options["storage"])
    given = merged(path, options)
    study = config.from_dict(config.StudyConfig, given)
    with foreground() as console:
        outcome = run_study(study, console, unsaid=[name for name in FITTED if name not in given])
    sys.exit(0 if outcome else INTERRUPTED)


@command.command("list")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@json_option
def list_(storage: str | None, as_json: bool) -> None:
    """List studies: trials by state, best score, when.

    \b
    Example:
      qm9flow study list
    """
    from qm9flow.workflows.records import list_studies, studies_text

    rows = list_studies(storage)
    print_json(rows) if as_json else say(studies_text(rows))


@command.command()
@click.argument("name")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@option("--top", click.IntRange(min=1), "Trials to show, at least 1.  [default: 10]")
@json_option
def show(name: str, storage: str | None, top: int | None, as_json: bool) -> None:
    """Show one study: its configuration and its best trials.

    \b
    Example:
      qm9flow study show seed-1a2b3c4d-5e6f7a8b --top 5
    """
    from qm9flow.workflows.records import show_study, study_text

    shown = show_study(name, storage, top or 10)
    print_json(shown) if as_json else say(study_text(shown))


@command.command(short_help="Go on with a study under its own options.")
@click.argument("name")
@option("--n-trials", int, "A new total.  [default: the study's]")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@option("--finalists", int, "A new number of them.  [default: the study's]")
@option("--final-minutes", float, "A new budget.  [default: the study's]")
@option("--timeout-minutes", float, "No new trial after this time.  [default: no limit]")
def resume(name: str, storage: str | None, **changes: Any) -> None:
    """Go on with a study under the configuration that it was started with.

    \b
    Example:
      qm9flow study resume seed-1a2b3c4d-5e6f7a8b --n-trials 40
    """
    from qm9flow.workflows.study import resume_study

    given = {key: value for key, value in changes.items() if value is not None}
    with foreground() as console:
        outcome = resume_study(name, storage, given, console)
    sys.exit(0 if outcome else INTERRUPTED)


@command.command(short_help="Delete a study with its runs; versions stay.")
@click.argument("name")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, storage: str | None, yes: bool) -> None:
    """Delete a study: its trials, runs, checkpoints and TensorBoard files.

    Registered versions stay.

    \b
    Example:
      qm9flow study delete seed-1a2b3c4d-5e6f7a8b --yes
    """
    from qm9flow.workflows.records import delete_study

    if not yes:
        click.confirm(f"Delete study {name} with all its runs?", abort=True, err=True)
    say(delete_study(name, storage))
