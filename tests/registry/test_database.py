"""A database that is damaged, half made, or made by two at once."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from qm9flow.registry.database import check_database, make_database

MAKE = """
import sys
from pathlib import Path
from qm9flow.registry.database import make_database

def fill(path):
    import sqlite3
    with sqlite3.connect(path) as database:
        database.execute("create table t (made_by text)")
        database.execute("insert into t values (?)", (sys.argv[2],))
    database.close()
    print("filled", flush=True)
    sys.stdin.readline()

print(make_database(Path(sys.argv[1]), fill))
"""


def maker(path: Path, name: str) -> "subprocess.Popen[str]":
    """A process that has filled its database and waits for a line before it puts it in place."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE, str(path), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "filled\n"
    return process


def made_by(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [row[0] for row in database.execute("select made_by from t")]


def touch(path: Path) -> None:
    path.write_bytes(b"made")


def test_killed_maker_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    process = maker(path, "first")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    (left,) = tmp_path.iterdir()
    assert make_database(path, touch) is None
    assert left.exists()  # its maker might be alive
    path.unlink()
    os.utime(left, (time.time() - 7200,) * 2)
    assert make_database(path, touch) is None
    assert list(tmp_path.iterdir()) == [path]


def test_two_makers_share_the_first_ones(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    processes = [maker(path, name) for name in ("first", "second")]
    for process in processes:
        answer, _ = process.communicate("go on\n")
        assert answer == "None\n"
        assert process.returncode == 0
    assert made_by(path) == ["first"]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_nlink == 1


def test_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "deep" / "mlflow.db"
    assert make_database(path, touch) is None
    assert path.read_bytes() == b"made"


def test_link_to_a_place_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "mlflow.db"
    path.symlink_to(tmp_path / "elsewhere" / "real.db")
    assert make_database(path, touch) is None
    assert path.is_symlink()
    assert (tmp_path / "elsewhere" / "real.db").read_bytes() == b"made"


@pytest.mark.parametrize("end", ["-journal", "-wal"])
def test_journal_of_another_database_is_not_played_back(tmp_path: Path, end: str) -> None:
    journal = tmp_path / f"mlflow.db{end}"
    journal.write_bytes(b"changes of a database that was moved away")
    complaint = make_database(tmp_path / "mlflow.db", touch)
    assert complaint is not None
    assert str(journal) in complaint
    assert list(tmp_path.iterdir()) == [journal]


def test_looking_makes_no_file(tmp_path: Path) -> None:
    complaint = check_database(tmp_path / "mlflow.db")
    assert complaint is not None
    assert "unable to open" in complaint
    assert list(tmp_path.iterdir()) == []


def test_held_database_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qm9flow.registry.database.LOCKED_S", 0.1)
    path = tmp_path / "my 100%? file.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table t (x)")
        assert check_database(path) is None
        database.execute("begin exclusive")
        complaint = check_database(path)
    assert complaint is not None
    assert "database is locked" in complaint
    assert "another process" in complaint
