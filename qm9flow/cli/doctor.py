"""`qm9flow doctor`: what is wrong, and what can be done about it."""

import sys
from typing import TYPE_CHECKING

import click

from qm9flow.cli.params import json_option, option
from qm9flow.cli.show import print_json, say

if TYPE_CHECKING:
    from qm9flow.workflows.doctor.findings import Finding

MARKS = {"good": "ok", "note": "note", "bad": "BAD"}


@click.command(short_help="Find out what is wrong, and mend what can be.")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@click.option("--fix", is_flag=True, help="Do what is proposed; without it nothing is changed.")
@json_option
def command(storage: str | None, *, fix: bool, as_json: bool) -> None:
    """Look at installation, GPU, data, stores, disks, and runs that killed processes left behind.

    Says what it would do before it does anything. Ends with 1 if something stands in the way of
    work and was not mended.

    \b
    Example:
      qm9flow doctor
      qm9flow doctor --fix
    """
    from qm9flow.workflows.doctor.examine import examine

    found = examine(storage, lambda finding: None if as_json else say(_line(finding)))
    done = [_mend(finding, as_json=as_json) for finding in found if fix and finding.remedy]
    bad = [finding for finding in found if finding.state == "bad"]
    left = [finding for finding in bad if not (fix and finding.remedy)]
    if as_json:
        print_json({"findings": [_plain(finding) for finding in found], "done": done})
    elif left and any(finding.remedy for finding in left):
        say("`qm9flow doctor --fix` does what is proposed")
    sys.exit(1 if left else 0)


def _mend(finding: "Finding", *, as_json: bool) -> str:
    assert finding.remedy is not None
    done = finding.remedy.apply()
    if not as_json:
        say(f"fixed: {done}")
    return done


def _line(finding: "Finding") -> str:
    text = f"{MARKS[finding.state]:5}{finding.area:10}{finding.text}"
    return text if finding.remedy is None else f"{text}\n{'':15}--fix would {finding.remedy.plan}"


def _plain(finding: "Finding") -> dict[str, str | None]:
    return {
        "area": finding.area,
        "state": finding.state,
        "text": finding.text,
        "remedy": finding.remedy.plan if finding.remedy else None,
    }
