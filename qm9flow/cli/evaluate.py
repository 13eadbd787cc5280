"""`qm9flow evaluate`."""

import sys
from pathlib import Path
from typing import get_args

import click

from qm9flow.cli.params import json_option, option
from qm9flow.cli.running import INTERRUPTED, foreground
from qm9flow.cli.show import print_json, say
from qm9flow.config.choices import GeometrySource


@click.command()
@option(
    "--model",
    str,
    "An alias, a version's number, a bundle's folder, or pretrained.  [default: champion]",
)
@option(
    "--on",
    click.Choice(["test", "validation"]),
    "Which molecules of the model's own split.  [default: test]",
)
@option(
    "--geometry",
    click.Choice(get_args(GeometrySource)),
    "What the model is shown: DFT's geometries, MMFF94's, or SMILES.  [default: dft]",
)
@option("--output", click.Path(path_type=Path, file_okay=False), "A folder for all of it.")
@option("--targets", str, "Whose worst molecules are drawn, with commas.  [default: eight]")
@option("--worst", click.IntRange(1, 12), "Molecules drawn a target, 1 to 12.  [default: 5]")
@option("--limit", click.IntRange(min=2), "Only the first molecules, to be quick.")
@json_option
def command(
    *,
    model: str | None,
    on: str | None,
    geometry: GeometrySource | None,
    output: Path | None,
    targets: str | None,
    worst: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Look at a model's errors on molecules that it never trained on, from its ONNX graph.

    Mean absolute errors on its own split and on `standard`'s molecules, beside a linear model of
    the composition, chemical accuracy and the literature; by size and element; how many true
    values lie in their intervals; the worst molecules, drawn; parity plots. A registered version's
    run in MLflow gets all of it under `evaluation/`, and so does --output: JSON, CSV, Markdown and
    PNG. What a study or `train --register` registered has that of its test molecules there already.

    \b
    Example:
      qm9flow evaluate --model champion --output evaluation
      qm9flow evaluate --model 3 --targets gap,mu --worst 8
      qm9flow evaluate --model pretrained --geometry smiles --output from-smiles
    """
    from qm9flow.evaluation.assessment import WORST_TARGETS
    from qm9flow.workflows.console import Stopped
    from qm9flow.workflows.evaluate import evaluate

    named = [name.strip() for name in (targets or "").split(",") if name.strip()]
    with foreground() as console:
        try:
            done = evaluate(
                model or "champion",
                "validation" if on == "validation" else "test",
                console,
                geometry=geometry or "dft",
                limit=limit,
                targets=named or WORST_TARGETS,
                n_worst=worst or 5,
                output=output,
            )
        except Stopped:
            sys.exit(INTERRUPTED)
    if as_json:
        kept = {
            "folder": str(done.folder) if done.folder else None,
            "run_ids": list(done.run_ids),
            "not_logged": list(done.not_logged),
        }
        print_json({**done.assessment.as_dict(), "kept": kept})
    else:
        say("\n\n".join(text for text in (done.assessment.as_text(), done.where()) if text))
