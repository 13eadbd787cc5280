"""`qm9flow report`."""

import click

from qm9flow.cli.params import OrEmpty, option
from qm9flow.cli.show import say


@click.command(short_help="Write a study's report.")
@click.argument("study", required=False, metavar="[STUDY]", type=OrEmpty(click.STRING))
@option("--study-name", str, "The study, as STUDY.  [default: the one changed last]")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@option("--output", str, "A folder of yours.  [default: report/ of the study's run in MLflow]")
def command(
    study: str | None, study_name: str | None, storage: str | None, output: str | None
) -> None:
    """Write the report of STUDY, by default the one changed last: one page that needs no network.

    It has key figures, history, importances, settings, Pareto front, rungs, gradients, the best
    trials, and the champion's errors beside the literature. Of a study that still runs or was
    interrupted, it has what there is and says what is missing.

    \b
    Example:
      qm9flow report
      qm9flow report seed-1a2b3c4d-5e6f7a8b --output report
    """
    from qm9flow.workflows.study_report import report_study

    if study and study_name and study != study_name:
        raise click.UsageError(f"two studies are named, {study} and {study_name}; name one")
    say(report_study(study or study_name, storage, output).as_text())
