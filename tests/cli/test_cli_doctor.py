"""`qm9flow doctor`: a line a finding, what `--fix` does, and an exit status."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qm9flow.cli.main import cli
from qm9flow.errors import StudyBusyError
from qm9flow.workflows.doctor import examine
from qm9flow.workflows.doctor.findings import Finding, Remedy


def doctor(*options: str) -> Result:
    return CliRunner().invoke(cli, ["doctor", *options])


def refuse() -> str:
    raise StudyBusyError("study 'x' is being run by process 7 on there")


GOOD = Finding("data", "good", "all is well")
NOTE = Finding("registry", "note", "no model is registered")
MENDABLE = Finding("runs", "bad", "study x was killed", Remedy("end its runs", lambda: "ended it"))
BUSY = Finding("runs", "bad", "study x was killed", Remedy("end its runs", refuse))
BAD = Finding("disk", "bad", "1 MB free: make room")


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch):
    """Let the examination find something."""

    def find(*found: Finding) -> None:
        def look(storage, say):
            for finding in found:
                say(finding)
            return list(found)

        monkeypatch.setattr(examine, "examine", look)

    return find


def test_a_line_a_finding(finds) -> None:
    finds(GOOD, NOTE)
    result = doctor()
    assert result.output == ("ok   data      all is well\nnote registry  no model is registered\n")
    assert result.exit_code == 0


def test_says_what_fix_would_do_and_does_it_only_then(finds) -> None:
    finds(GOOD, MENDABLE)
    result = doctor()
    assert result.exit_code == 1
    assert result.output.splitlines()[1:] == [
        "BAD  runs      study x was killed",
        "               --fix would end its runs",
        "`qm9flow doctor --fix` does what is proposed",
    ]
    result = doctor("--fix")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "fixed: ended it"


def test_what_is_not_mended_is_said(finds) -> None:
    finds(BUSY, MENDABLE)
    result = doctor("--fix")
    assert result.exit_code == 1
    assert result.output.splitlines()[-2:] == [
        "NOT FIXED: study 'x' is being run by process 7 on there",
        "fixed: ended it",
    ]
    finds(BAD)
    assert doctor("--fix").exit_code == 1
    assert "--fix" not in doctor().output


def test_json(finds) -> None:
    finds(GOOD, MENDABLE, BUSY)
    result = doctor("--json", "--fix")
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert answer["ok"] is False
    assert [item["fixed"] for item in answer["findings"]] == [False, True, False]
    assert answer["findings"][0] == {
        "area": "data",
        "state": "good",
        "text": "all is well",
        "remedy": None,
        "fixed": False,
        "done": None,
    }
    assert answer["findings"][2]["done"] == "study 'x' is being run by process 7 on there"


def test_in_an_empty_folder(stores_in: Path) -> None:
    result = doctor()
    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert all(line.startswith(("ok   ", "note ")) for line in lines), lines
    assert {line.split()[1] for line in lines} >= {"versions", "machine", "data", "disk", "runs"}
    assert list(stores_in.iterdir()) == []


def test_a_damaged_database(stores_in: Path) -> None:
    (stores_in / "mlflow.db").write_bytes(os.urandom(50_000))
    result = doctor()
    assert result.exit_code == 1
    (bad,) = [line for line in result.output.splitlines() if line.startswith("BAD")]
    assert "mlflow.db cannot be used as MLflow's database (file is not a database)" in bad
