"""A damaged `mlflow.db`: one line that names it and says what to do, from every command."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qm9flow.cli.main import main

COMMANDS = (
    "models",
    "models --json",
    "predict --smiles CCO",
    "promote 1",
    "rollback",
    "export --output there",
    "evaluate",
    "serve --port 0",
    "train --epochs 1",
    "study run --n-trials 1",
)


def damage(path: Path, how: str) -> None:
    if how == "noise":
        path.write_bytes(os.urandom(50_000))
    elif how == "cut":
        # SQLite's header of a database of 100 pages, without 98 of them
        header = bytearray(100)
        header[:16] = b"SQLite format 3\0"
        header[16:24] = bytes((16, 0, 1, 1, 0, 64, 32, 32))
        header[28:32] = (100).to_bytes(4, "big")
        path.write_bytes(bytes(header) + bytes(2 * 4096 - 100))
    elif how == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"")
        path.chmod(0)


Said = Callable[[str], str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """What a command says on stderr when it ends with status 1."""

    def run(command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["qm9flow", *command.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert ended.value.code == 1, shown.err
        return shown.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_it_in_a_line(command: str, stores_in: Path, said: Said) -> None:
    damage(stores_in / "mlflow.db", "noise")
    error = said(command)
    assert re.fullmatch(
        r"Error: .*mlflow\.db cannot be used as MLflow's database \(file is not a database\): "
        r"restore a copy of it, or move it away .*\n",
        error,
    )


@pytest.mark.parametrize("command", ["models", "train --epochs 1"])
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "database disk image is malformed.*restore a copy"),
        ("folder", "it is a folder.*check the path"),
        pytest.param(
            "unreadable",
            "unable to open database file.*its rights",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything"),
        ),
    ],
)
def test_every_damage_is_named(
    command: str, how: str, words: str, stores_in: Path, said: Said
) -> None:
    damage(stores_in / "mlflow.db", how)
    error = said(command)
    assert re.fullmatch(rf"Error: .*mlflow\.db cannot be used .*{words}.*\n", error)
