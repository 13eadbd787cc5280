"""`qm9flow data`: prepare and describe QM9."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qm9flow.cli.params import json_option
from qm9flow.cli.progress import long_progress, progress_bar
from qm9flow.cli.running import resumable
from qm9flow.cli.show import print_json, say

if TYPE_CHECKING:
    from qm9flow.data.geometry_set import GeometrySet
    from qm9flow.data.store import Dataset

_SHOWN = 10
"""Failures that are listed; more tell nothing more."""

cache_option = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder of the cache, instead of QM9FLOW_CACHE or the user's cache folder.",
)


workers_option = click.option(
    "--workers", type=click.IntRange(min=1), default=None, help="Processes.  [default: one a core]"
)


@click.group()
def command() -> None:
    """Prepare and describe QM9.

    \b
    Example:
      qm9flow data prepare
      qm9flow data conformers
      qm9flow data info --json
    """


@command.command()
@cache_option
@click.option("--force", is_flag=True, help="Prepare anew, even over a good cache.")
@json_option
def prepare(cache: Path | None, force: bool, as_json: bool) -> None:
    """Read QM9's tables once into a cache that opens at once.

    \b
    Example:
      qm9flow data prepare --force
    """
    from qm9flow.data import store

    with progress_bar() as progress:
        if force:
            dataset = store.prepare(cache, progress, replace=True)
        else:
            dataset = store.open_dataset(cache, progress)
    facts = {
        "molecules": len(dataset),
        "digest": dataset.digest,
        "folder": str(dataset.folder),
    }
    if as_json:
        print_json(facts)
    else:
        say(f"{len(dataset):,} molecules in {dataset.folder}\ndigest {dataset.digest}")


@command.command()
@cache_option
@click.option(
    "--count",
    type=click.IntRange(1, 100),
    default=None,
    help="Starts of a molecule.  [default: as many as predictions take]",
)
@workers_option
@click.option("--force", is_flag=True, help="Make good ones anew, too.")
@json_option
def conformers(
    cache: Path | None, count: int | None, workers: int | None, force: bool, as_json: bool
) -> None:
    """Make geometries from SMILES, as users have them.

    ETKDGv3 and MMFF94, with the handedness of QM9's own geometries. It takes about four
    hours of one core; started again after an interruption, it goes on.

    \b
    Example:
      qm9flow data conformers
      qm9flow data conformers --count 3 --json
    """
    from qm9flow.data import store
    from qm9flow.data.conformers import make_conformers
    from qm9flow.molecules.pool import CONFORMERS

    starts = count or CONFORMERS
    with resumable(_goes_on(force)):
        with progress_bar() as progress:
            dataset = store.open_dataset(cache, progress)
        with long_progress() as tell:
            made = make_conformers(dataset, starts, workers=workers, progress=tell, replace=force)
    _say_made(made, dataset, as_json=as_json)


@command.command()
@cache_option
@workers_option
@click.option("--force", is_flag=True, help="Make good ones anew, too.")
@json_option
def relaxed(cache: Path | None, workers: int | None, force: bool, as_json: bool) -> None:
    """Relax QM9's geometries in a force field (MMFF94).

    It takes some minutes; started again after an interruption, it goes on.

    \b
    Example:
      qm9flow data relaxed
    """
    from qm9flow.data import store
    from qm9flow.data.relaxed import make_relaxed

    with resumable(_goes_on(force)):
        with progress_bar() as progress:
            dataset = store.open_dataset(cache, progress)
        with long_progress() as tell:
            made = make_relaxed(dataset, workers=workers, progress=tell, replace=force)
    _say_made(made, dataset, as_json=as_json)


def _goes_on(is_forced: bool) -> str:
    command = "the same command without --force" if is_forced else "the same command"
    return f"the shards that are done are kept, {command} goes on"


def _say_made(made: "GeometrySet", dataset: "Dataset", *, as_json: bool) -> None:
    facts = {
        "molecules": len(made),
        "geometries": len(made.energies),
        "failures": [
            {"qm9": int(dataset.index[i]), "smiles": text, "reason": reason}
            for i, text, reason in made.failures
        ],
        "digest": made.digest,
        "folder": str(made.folder),
    }
    if as_json:
        print_json(facts)
        return
    rebuilt = len(made) - len(made.failures)
    lines = [f"{len(made.energies):,} geometries of {rebuilt:,} molecules in {made.folder}"]
    if made.failures:
        lines.append(f"{len(made.failures):,} molecules have none (all of them: --json):")
        lines += [f"  {text}: {why}" for _, text, why in made.failures[:_SHOWN]]
    say("\n".join([*lines, f"digest {made.digest}"]))


@command.command()
@cache_option
@click.option(
    "--split-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the splits that are shown.",
)
@click.option("--verify", is_flag=True, help="Compare every byte of the cache with its hashes.")
@json_option
def info(cache: Path | None, split_seed: int, verify: bool, as_json: bool) -> None:
    """Counts, units, ranges, splits, citation and licences.

    \b
    Example:
      qm9flow data info --verify
    """
    from qm9flow.data import store
    from qm9flow.data.describe import describe

    with progress_bar() as progress:
        dataset = store.verify(cache) if verify else store.open_dataset(cache, progress)
    facts = describe(dataset, split_seed)
    if as_json:
        print_json({**facts, "verified": verify})
        return
    say("\n".join(_lines(facts)))
    if verify:
        say("\nEvery file of the cache has its SHA-256.")


def _lines(facts: dict[str, Any]) -> list[str]:
    sizes = facts["sizes"]
    lines = [
        f"QM9: {facts['molecules']:,} molecules, {facts['atoms']:,} atoms "
        f"({sizes['smallest']} to {sizes['largest']} a molecule, {sizes['mean']:.1f} on average)",
        f"cache   {facts['folder']} ({facts['bytes'] / 1e6:.0f} MB)",
        *(
            f"        {other['folder']} ({other['bytes'] / 1e6:.0f} MB) is of another version of "
            "qm9flow: delete it if you have none"
            for other in facts["other_caches"]
        ),
        f"digest  {facts['digest']}",
        "",
        f"{'element':10}{'atoms':>12}{'molecules':>12}",
    ]
    for symbol, entry in facts["elements"].items():
        lines.append(f"{symbol:10}{entry['atoms']:12,}{entry['molecules']:12,}")
    header = f"{'target':10}{'unit':13}{'minimum':>12}{'mean':>12}{'maximum':>14}{'std':>12}"
    lines += ["", f"{header}  what"]
    for name, entry in facts["targets"].items():
        lines.append(
            f"{name:10}{entry['unit']:13}{entry['minimum']:12.4f}{entry['mean']:12.4f}"
            f"{entry['maximum']:14.4f}{entry['standard_deviation']:12.4f}  {entry['description']}"
        )
    lines += ["", f"{'split':10}{'train':>9}{'validation':>12}{'test':>9}  seed  SHA-256"]
    for name, entry in facts["splits"].items():
        lines.append(
            f"{name:10}{entry['train']:9,}{entry['validation']:12,}{entry['test']:9,}"
            f"  {entry['seed']:4}  {entry['digest']}"
        )
    return [*lines, "", facts["citation"], facts["licence"]]
