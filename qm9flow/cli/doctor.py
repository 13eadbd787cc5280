"""`qm9flow doctor`: what is wrong, and what can be done about it."""

import sys
from typing import TYPE_CHECKING

import click

from qm9flow.cli.params import json_option, option
from qm9flow.cli.show import print_json, say
from qm9flow.errors import Qm9FlowError

if TYPE_CHECKING:
    from qm9flow.workflows.doctor.findings import Finding

MARKS = {"good": "ok", "note": "note", "bad": "BAD"}


@click.command(short_help="Find out what is wrong, and mend what can be.")
@option("--storage", str, "Optuna storage URL.  [default: optuna.db under mlruns/]")
@click.option("--fix", is_flag=True, help="Do what is proposed; without it nothing is changed.")
@json_option
def command(storage: str | None, *, fix: bool, as_json: bool) -> None:
    """Look at installation, GPU, data, stores, disks, and runs that killed processes left behind.

    Says what it would do before it does anything. What a living process holds, on any machine, is
    left alone. Ends with 1 if something stands in the way of work and was not mended.

    \b
    Example:
      qm9flow doctor
      qm9flow doctor --fix
    """
    from qm9flow.workflows.doctor.examine import examine

    found = examine(storage, lambda finding: None if as_json else say(_line(finding)))
    mended = {id(item): _mend(item) for item in found if fix and item.remedy}
    bad = [item for item in found if item.state == "bad" and not mended.get(id(item), (False,))[0]]
    if as_json:
        print_json({"ok": not bad, "findings": [_plain(item, mended) for item in found]})
    else:
        for is_mended, text in mended.values():
            say(f"fixed: {text}" if is_mended else f"NOT FIXED: {text}")
        if any(item.remedy for item in bad) and not fix:
            say("`qm9flow doctor --fix` does what is proposed")
    sys.exit(1 if bad else 0)


def _mend(finding: "Finding") -> tuple[bool, str]:
    """Whether it worked, and what was done or was in the way."""
    assert finding.remedy is not None
    try:
        return True, finding.remedy.apply()
    except Qm9FlowError as error:
        return False, str(error)


def _line(finding: "Finding") -> str:
    text = f"{MARKS[finding.state]:5}{finding.area:10}{finding.text}"
    return text if finding.remedy is None else f"{text}\n{'':15}--fix would {finding.remedy.plan}"


def _plain(finding: "Finding", mended: dict[int, tuple[bool, str]]) -> dict[str, object]:
    is_mended, done = mended.get(id(finding), (False, None))
    return {
        "area": finding.area,
        "state": finding.state,
        "text": finding.text,
        "remedy": finding.remedy.plan if finding.remedy else None,
        "fixed": is_mended,
        "done": done,
    }
