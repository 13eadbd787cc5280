"""`qm9flow predict FILE --output OUTPUT` as a user calls it."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import served
from click.testing import CliRunner, Result

from qm9flow.cli.main import cli
from qm9flow.data.store import Dataset
from qm9flow.errors import BulkError, ConfigError, Qm9FlowError

TABLE = "id,smiles\n1,CCO\n2,C1CC\n3,O\n"


@pytest.fixture
def registry(dataset: Dataset, stores_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table, and a store with a champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.store(dataset))
    (stores_in / "in.csv").write_text(TABLE)
    return stores_in


def call(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["predict", "--targets", "gap", *arguments], input=stdin)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_to_a_file(registry: Path) -> None:
    result = call("in.csv", "--output", "out.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    assert result.stderr == "3 rows, 1 with errors: out.csv\n"
    rows = rows_of((registry / "out.csv").read_text())
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert [row["error_code"] for row in rows] == ["", "invalid_smiles", ""]
    assert {row["version"] for row in rows} == {"1"}
    again = call("in.csv", "--output", "out.csv")
    assert isinstance(again.exception, BulkError)
    assert "--restart" in str(again.exception)
    assert call("in.csv", "--output", "out.csv", "--restart").exit_code == 0


def test_the_summary_as_json(registry: Path) -> None:
    result = call("in.csv", "--output", "out.jsonl.gz", "--json", "--chunk", "2", "--workers", "1")
    assert json.loads(result.stdout) == {
        "output": "out.jsonl.gz",
        "rows": 3,
        "refused": 1,
        "resumed": 0,
        "renamed": [],
    }
    lines = gzip.decompress((registry / "out.jsonl.gz").read_bytes()).decode().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("in.csv",), None),
        (("in.csv", "--output", "-"), None),
        (("-", "--format", "csv"), TABLE.encode()),
        (("-", "--format", "csv"), gzip.compress(TABLE.encode(), mtime=0)),
        (("in.txt.gz", "--format", "csv", "--smiles-column", "smiles"), None),
    ],
)
def test_rows_to_standard_output(
    registry: Path, arguments: tuple[str, ...], stdin: bytes | None
) -> None:
    (registry / "in.txt.gz").write_bytes(gzip.compress(TABLE.encode()))
    result = call(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in rows_of(result.stdout)] == ["1", "2", "3"]
    assert result.stderr == "3 rows, 1 with errors\n"


def test_clashing_names_are_told(registry: Path) -> None:
    (registry / "in.csv").write_text("smiles,gap\nO,old\n")
    result = call("in.csv", "--output", "out.csv")
    assert result.stderr.splitlines()[0] == "named otherwise than usual: 'gap' -> 'qm9flow_gap'"
    (row,) = rows_of((registry / "out.csv").read_text())
    assert row["gap"] == "old"
    assert float(row["qm9flow_gap"])


def test_exit_status_is_one_if_all_rows_were_refused(registry: Path) -> None:
    (registry / "bad.smi").write_text("C1CC\nCCl\n")
    assert call("bad.smi", "--output", "out.csv").exit_code == 1
    (registry / "none.smi").write_text("")
    assert call("none.smi", "--output", "none.csv").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("in.csv", "--smiles", "C", "--output", "o.csv"), ConfigError, "one FILE at a time"),
        (("in.csv", "in.csv"), ConfigError, "one FILE at a time"),
        (("--output", "o.csv"), ConfigError, "one FILE at a time"),
        (("none.csv",), BulkError, "No such file"),
        (("in.csv", "--output", "o.xls"), ConfigError, "--output-format"),
        (("-",), ConfigError, "--format"),
        (("in.csv", "--output-format", "parquet"), ConfigError, "name a file"),
        (("in.csv", "--smiles-column", "x"), BulkError, "'id', 'smiles'"),
        (("in.csv", "--geometry", "dft"), ConfigError, "--geometry is for XYZ"),
        (("in.csv", "--output", "in.csv"), BulkError, "is the input"),
    ],
)
def test_what_cannot_be_done_is_said(
    registry: Path, arguments: tuple[str, ...], kind: type[Qm9FlowError], words: str
) -> None:
    result = call(*arguments)
    assert isinstance(result.exception, kind), result.output
    assert words in str(result.exception)
    assert (registry / "in.csv").read_text() == TABLE


def command(*arguments: str) -> list[str]:
    line = [sys.executable, "-m", "qm9flow", "predict", "--targets", "gap", "--chunk", "8"]
    return [*line, "--workers", "2", *arguments]


def environment() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), **os.environ}


def write_many(folder: Path, dataset: Dataset, rows: int) -> Path:
    path = folder / "many.smi"
    path.write_text("".join(f"{dataset.smiles(10 * row)} {row}\n" for row in range(rows)))
    return path


def journaled(path: Path) -> int:
    try:
        return int(json.loads(path.read_text())["rows"])
    except FileNotFoundError:
        return 0


def wait_for_rows(process: "subprocess.Popen[str]", journal: Path, rows: int) -> None:
    until = time.monotonic() + 120
    while journaled(journal) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_reader_that_has_enough_ends_the_run(registry: Path) -> None:
    (registry / "long.csv").write_text("smiles\n" + "C1CC\n" * 3_000)
    line = " ".join(command("long.csv"))
    done = subprocess.run(
        ["bash", "-c", f"{line} | head -3"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert len(done.stdout.splitlines()) == 3
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(registry: Path, dataset: Dataset) -> None:
    source = write_many(registry, dataset, 400)
    with subprocess.Popen(
        command(source.name, "--output", "out.csv"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        wait_for_rows(process, registry / "out.csv.journal", 8)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "the same command goes on" in err
    assert "Traceback" not in err
    psutil.wait_procs(family, timeout=20)
    assert not [child for child in family if child.is_running()]
    assert not (registry / "out.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_run_that_is_killed_again_and_again_gives_the_same_bytes(
    kind: str, registry: Path, dataset: Dataset
) -> None:
    source = write_many(registry, dataset, 112)
    model = ("--model", str(served.bundle(dataset)))
    whole, output = registry / f"whole.{kind}", registry / f"out.{kind}"
    subprocess.run(
        command(source.name, "--output", whole.name, *model), check=True, env=environment()
    )
    line = command(source.name, "--output", output.name, "--json", *model)
    for rows in (1, 40, 72):
        with subprocess.Popen(line, env=environment(), text=True) as process:
            wait_for_rows(process, registry / f"out.{kind}.journal", rows)
            family = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        psutil.wait_procs(family, timeout=30)
        assert not [child for child in family if child.is_running()]
        assert not output.exists()
    done = subprocess.run(line, check=True, env=environment(), capture_output=True, text=True)
    assert 72 <= json.loads(done.stdout)["resumed"] < 112
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(item.name for item in registry.glob("out.*")) == [output.name]
