"""`qm9flow evaluate`."""

import click

from qm9flow.cli.params import json_option, option
from qm9flow.cli.show import print_json, say


@click.command()
@option("--model", str, "A version's number or alias.  [default: champion]")
@click.option(
    "--on",
    "part",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Which of `standard`'s molecules.",
)
@json_option
def command(model: str | None, part: str, as_json: bool) -> None:
    """Compute a registered version's errors again, from its ONNX graph.

    Beside them: the linear model of the composition, and chemical accuracy.

    \b
    Example:
      qm9flow evaluate --model champion
    """
    from qm9flow.cli.running import foreground
    from qm9flow.workflows.evaluate import evaluate_version

    with foreground() as console:
        version, table = evaluate_version(model, part, console)
    if as_json:
        print_json({"version": version, "on": part, **table.as_dict()})
    else:
        say(f"version {version} on `standard`'s {part} molecules\n\n{table.as_text()}")
