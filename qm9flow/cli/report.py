"""`qm9flow report`."""

import click

from qm9flow.cli.params import option
from qm9flow.cli.show import say


@click.command()
@option("--study-name", str, "The study.  [default: the one changed last]")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@option("--output", str, "A folder of yours.  [default: the study's run in MLflow]")
def command(study_name: str | None, storage: str | None, output: str | None) -> None:
    """Draw a study's figures again: history, importances, Pareto set, verdicts.

    \b
    Example:
      qm9flow report --output figures
    """
    from qm9flow.workflows.figures import draw_study

    say(draw_study(study_name, storage, output))
