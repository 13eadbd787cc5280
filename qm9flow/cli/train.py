"""`qm9flow train`."""

import sys
from pathlib import Path
from typing import Any

import click

from qm9flow import config
from qm9flow.cli.params import gradient_option, merged, option, seed_option
from qm9flow.cli.running import INTERRUPTED, foreground
from qm9flow.errors import ConfigError


@click.command()
@option("--config", click.Path(path_type=Path, dir_okay=False), "TOML or JSON file of options.")
@option("--recipe", click.Choice(list(config.RECIPES)), "To start from.  [default: flagship]")
@option("--from-run", str, "Repeat the trial or training of that MLflow run.")
@click.option(  # where an empty name, of an unset variable, must not mean fresh weights
    "--start-from",
    type=str,
    help="Go on from that model's weights: alias, version, bundle, pretrained.",
)
@option("--name", str, "Of the training; the same command goes on after a stop.")
@option("--minutes", float, "Training time, at most.")
@option("--epochs", int, "Epochs, at most.")
@option(
    "--learning-rate",
    float,
    "After warm-up. With --start-from 1e-3 or less for a short time, and 2e-3 with --geometry "
    "approximate, which is new to the weights.  [default: the recipe's, flagship 3e-3]",
)
@option("--train-size", int, "Training molecules.")
@option(
    "--geometry",
    click.Choice(["dft", "approximate"]),
    "approximate: networks for geometries of a user's and for SMILES.  [default: dft]",
)
@option("--split", click.Choice(["seed", "standard"]), "Which molecules are trained on.")
@option("--seed", int, "Of weights and batches.")
@option("--device", click.Choice(["auto", "cpu", "cuda"]), "Where to train.")
@option("--threads", int, "Threads of torch.")
@gradient_option
@click.option("--register", is_flag=True, help="Release, evaluate and register the network.")
@seed_option
def command(
    *,
    recipe: str | None,
    from_run: str | None,
    start_from: str | None,
    name: str | None,
    register: bool,
    seed_pretrained: bool | None,
    minutes: Any,
    epochs: Any,
    **given: Any,
) -> None:
    """Train one network, on record, or repeat a recorded run.

    \b
    Example:
      qm9flow train --minutes 45 --register
      qm9flow train --recipe group --epochs 10
      qm9flow train --start-from pretrained --learning-rate 5e-4 --minutes 30
      qm9flow train --start-from champion --geometry approximate --learning-rate 2e-3 \\
        --minutes 150 --register
      qm9flow train --from-run 0123456789abcdef0123456789abcdef
    """
    from qm9flow.workflows.single import config_of_run, run_training, with_options
    from qm9flow.workflows.start import find_start

    path = given.pop("config")
    changes = given | {"max_minutes": minutes, "max_epochs": epochs}
    if from_run and (path or recipe):
        raise ConfigError("a run has its own options: leave --config and --recipe out")
    if start_from is not None and not start_from.strip():
        raise ConfigError("--start-from is empty: name a model, or leave it out")
    if from_run:
        train, repeats = config_of_run(from_run)
        train = with_options(train, changes)
        options = config.to_dict(train)
    else:
        repeats = None
        options = merged(path, changes | {"recipe": recipe})
        train = config.train_from_dict(options)
    start = find_start(start_from) if start_from else None
    if start:
        train = config.train_from_dict(start.options(options))
    with foreground() as console:
        done = run_training(
            train,
            console,
            name=name,
            repeats=repeats,
            start=start,
            is_to_be_registered=register,
            seed_pretrained=seed_pretrained is not False,
        )
    sys.exit(0 if done else INTERRUPTED)
