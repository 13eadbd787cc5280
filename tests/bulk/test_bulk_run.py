"""A run from file to file: order, errors, restarts; with real processes and a real network."""

import csv
import gzip
import io
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm9flow.bulk.chunks import AHEAD
from qm9flow.bulk.columns import ModelName
from qm9flow.bulk.meter import Standing
from qm9flow.bulk.readers.formats import Source
from qm9flow.bulk.run import Engine, Options, Summary, predict_file
from qm9flow.errors import (
    DependencyError,
    InferenceError,
    InputFileError,
    OutputFileError,
    Qm9FlowError,
    ResumeError,
)
from qm9flow.inference.session import Session
from qm9flow.model import Model
from qm9flow.molecules.pool import MoleculePool

NAME = ModelName("qm9flow", "3", "digest")
SMILES = ["CCO", "C1CC", "C", "", "O", "CCl", "CO", "N", "[NH4+]", "C#N", "C=O", "CC"]

Run = Callable[..., Summary]


@pytest.fixture
def run(model: Model, pool: MoleculePool) -> Run:
    """A run with processes that all tests share, of chunks of three rows."""

    def call(
        source: Path | bytes,
        output: object,
        *,
        kind: str | None = None,
        name: ModelName = NAME,
        show: Callable[[Standing], None] | None = None,
        **options: object,
    ) -> Summary:
        values = {"targets": ("gap", "mu"), "chunk": 3} | options
        is_pipe = isinstance(source, bytes)
        stdin = io.BytesIO(source) if isinstance(source, bytes) else None
        with Source("-" if is_pipe else source, kind, stdin=stdin) as rows:  # type: ignore[arg-type]
            engine = Engine(model.predictor, name, pool)
            return predict_file(rows, output, engine, Options(**values), show)  # type: ignore[arg-type]

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve rows, four of them refused."""
    path = tmp_path / "molecules.csv"
    lines = [f'{i},{smiles},"note {i}, kept"\n' for i, smiles in enumerate(SMILES)]
    path.write_text("id,smiles,note\n" + "".join(lines))
    return path


class Kill(BaseException):
    """Ends a run in its middle, as nothing in the program expects."""


def killed_after(rows: int) -> Callable[[Standing], None]:
    def show(standing: Standing) -> None:
        if standing.rows >= rows:
            raise Kill

    return show


def rows_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_rows_keep_order_columns_and_errors(run: Run, table: Path, model: Model) -> None:
    output = table.with_name("out.csv")
    assert run(table, output) == Summary(rows=12, refused=4, resumed=0)
    assert sorted(item.name for item in table.parent.iterdir()) == ["molecules.csv", "out.csv"]
    found = rows_in(output)
    assert [row["id"] for row in found] == [str(i) for i in range(12)]
    assert [row["note"] for row in found] == [f"note {i}, kept" for i in range(12)]
    assert list(found[0])[3:] == [
        *("gap", "mu", "in_domain", "domain_score", "geometry", "conformers", "warnings"),
        *("error_code", "error", "model", "version"),
    ]
    expected = model.predict(SMILES, ["gap", "mu"])
    for row, result in zip(found, expected, strict=True):
        if isinstance(result, Qm9FlowError):
            assert row["gap"] == ""
            assert row["error"] == str(result)
        else:
            assert float(row["gap"]) == pytest.approx(result.values["gap"], abs=1e-4)
            assert row["conformers"] == str(result.conformers)
            assert row["error"] == ""
        assert (row["model"], row["version"]) == ("qm9flow", "3")


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
@pytest.mark.parametrize("killed_at", [0, 3, 9, 12])
def test_a_run_goes_on_to_the_same_bytes(run: Run, table: Path, name: str, killed_at: int) -> None:
    whole, output = table.with_name(f"whole_{name}"), table.with_name(name)
    run(table, whole)
    with pytest.raises(Kill):
        run(table, output, show=killed_after(killed_at))
    assert not output.exists()
    part = output.with_name(f"{name}.part")
    with part.open("ab") as file:  # what was written when the journal was not yet
        file.write(b"half a chu")
    assert run(table, output).resumed == killed_at
    assert output.read_bytes() == whole.read_bytes()
    assert not part.exists()
    assert len(list(table.parent.iterdir())) == 3


def completed(run: Run, table: Path, output: Path, **options: object) -> str:
    """The journal of a run that wrote its last chunk and was killed before it tidied up."""
    journal = output.with_name(f"{output.name}.journal")
    with pytest.raises(Kill):
        run(table, output, show=killed_after(12), **options)
    state = json.loads(journal.read_text()) | {"is_complete": True}
    journal.write_text(json.dumps(state))
    return json.dumps(state)


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("replaces", [False, True])
def test_a_complete_run_is_finished_by_the_next(
    run: Run, table: Path, name: str, replaces: bool
) -> None:
    """Killed between its last chunk and the output's name, or between that and tidying up."""
    whole, output = table.with_name(f"whole_{name}"), table.with_name(name)
    journal = output.with_name(f"{name}.journal")
    run(table, whole)
    if replaces:
        output.write_text("precious")
    state = completed(run, table, output, restart=replaces)
    assert run(table, output) == Summary(rows=12, refused=4, resumed=12)
    assert output.read_bytes() == whole.read_bytes()
    journal.write_text(state)
    assert run(table, output) == Summary(rows=12, refused=4, resumed=12)
    assert output.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_a_complete_run_of_other_rows_is_not_finished(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    completed(run, table, output)
    text = table.read_text()
    table.write_text(text.replace("CCO", "CCN"))
    with pytest.raises(ResumeError, match="first 12 rows of"):
        run(table, output)
    table.write_text(text + "12,CN,new\n")
    assert run(table, output) == Summary(rows=13, refused=4, resumed=12)
    assert [row["id"] for row in rows_in(output)] == [str(i) for i in range(13)]


def test_a_run_goes_on_with_a_file_that_only_grew(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    with pytest.raises(Kill):
        run(table, output, show=killed_after(6))
    with table.open("a") as file:
        file.write("12,CN,new\n")
    assert run(table, output) == Summary(rows=13, refused=4, resumed=6)


def test_a_file_goes_on_that_grew_behind_a_short_last_chunk(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    with pytest.raises(Kill):
        run(table, output, chunk=5, show=killed_after(12))
    text = table.read_text() + "12,CN,new\n13,CNC,new\n"
    table.write_text(text.replace("CO,", "CS,"))
    with pytest.raises(ResumeError, match="first 12 rows of"):
        run(table, output, chunk=5)
    table.write_text(text)
    assert run(table, output, chunk=5) == Summary(rows=14, refused=4, resumed=12)
    assert [row["id"] for row in rows_in(output)] == [str(i) for i in range(14)]


def test_a_pipe_goes_on_if_it_begins_with_the_same_rows(run: Run, table: Path) -> None:
    whole, output = table.with_name("whole.csv"), table.with_name("out.csv")
    run(table, whole)
    content = table.read_bytes()
    with pytest.raises(Kill):
        run(content, output, kind="csv", show=killed_after(6))
    with pytest.raises(ResumeError, match="first 6 rows of standard input"):
        run(content.replace(b"CCO", b"CCN"), output, kind="csv")
    assert run(content, output, kind="csv").resumed == 6
    assert output.read_bytes() == whole.read_bytes()


def test_what_differs_is_refused(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    with pytest.raises(Kill):
        run(table, output, show=killed_after(6))
    for changes, words in (
        ({"targets": ("gap",)}, "targets gap, mu, now gap"),
        ({"chunk": 4}, "chunk 3, now 4"),
        ({"name": ModelName("qm9flow", "4", "other")}, "version 3, now 4; bundle digest, now"),
    ):
        with pytest.raises(ResumeError, match=words) as caught:
            run(table, output, **changes)
        assert "--restart" in str(caught.value)
    text = table.read_text()
    for changed in (text.replace("CCO", "CCN"), "".join(text.splitlines(keepends=True)[:4])):
        table.write_text(changed)
        with pytest.raises(ResumeError, match="first 6 rows of"):
            run(table, output)
    table.write_text(text.replace("note", "remark", 1))
    with pytest.raises(ResumeError, match="columns id, smiles, note, now id, smiles, remark"):
        run(table, output)
    table.write_text(text)
    assert run(table, output, chunk=4, restart=True) == Summary(rows=12, refused=4, resumed=0)


def failing_on(monkeypatch: pytest.MonkeyPatch, numbers: set[int], error: Exception) -> None:
    """Have every run of the graph break down that holds one of these elements."""
    whole = Session.run

    def run(self: Session, found: Any, positions: Any) -> Any:
        if numbers & set(found.flat):
            raise error
        return whole(self, found, positions)

    monkeypatch.setattr(Session, "run", run)


@pytest.mark.parametrize("chunk", [1, 3, 12])
@pytest.mark.parametrize("error", [InferenceError("no memory"), KeyError("no place")])
def test_a_row_that_breaks_the_network_ends_no_run(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, error: Exception
) -> None:
    good = table.with_name("good.csv")
    run(table, good, chunk=chunk)
    failing_on(monkeypatch, {7}, error)  # N, C#N
    output = table.with_name("out.csv")
    assert run(table, output, chunk=chunk) == Summary(rows=12, refused=6, resumed=0)
    for row, before in zip(rows_in(output), rows_in(good), strict=True):
        if row["smiles"] in ("N", "C#N"):
            assert row["error_code"] == "internal"
            assert "no place" in row["error"] or "no memory" in row["error"]
            assert row["gap"] == ""
        else:
            assert row == before


@pytest.mark.parametrize("chunk", [1, 3])
def test_a_model_that_cannot_be_run_ends_the_run_which_goes_on_later(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    good, output = table.with_name("good.csv"), table.with_name("out.csv")
    run(table, good, chunk=chunk)
    with pytest.raises(Kill):
        run(table, output, chunk=chunk, show=killed_after(6))
    with monkeypatch.context() as broken:
        failing_on(broken, set(range(10)), RuntimeError("the device is lost"))
        with pytest.raises(InferenceError, match=r"not even on water: .*the device is lost"):
            run(table, output, chunk=chunk)
    assert not output.exists()
    assert run(table, output, chunk=chunk).resumed == 6
    assert output.read_bytes() == good.read_bytes()


def test_an_output_is_replaced_only_when_asked_and_only_when_complete(
    run: Run, table: Path
) -> None:
    output = table.with_name("out.csv")
    output.write_text("precious")
    with pytest.raises(OutputFileError, match="exists already"):
        run(table, output)
    with pytest.raises(Kill):
        run(table, output, restart=True, show=killed_after(6))
    assert output.read_text() == "precious"
    assert run(table, output).resumed == 6
    assert len(rows_in(output)) == 12


def test_outputs_that_cannot_be_written(run: Run, table: Path) -> None:
    folder = table.parent
    (folder / "strange.csv.part").write_text("not ours")
    (folder / "broken.csv.journal").write_text("{")
    for output, words in (
        (folder / "none" / "out.csv", "no folder"),
        (table, "is the input"),
        (folder / "strange.csv", "in the way"),
    ):
        with pytest.raises(OutputFileError, match=words):
            run(table, output)
    (folder / "folder.csv").mkdir()
    with pytest.raises(OutputFileError, match="is a folder"):
        run(table, folder / "folder.csv")
    os.mkfifo(folder / "pipe.csv")
    for restart in (False, True):
        with pytest.raises(OutputFileError, match="a pipe or a device"):
            run(table, folder / "pipe.csv", restart=restart)
    assert (folder / "pipe.csv").is_fifo()
    with pytest.raises(ResumeError, match="--restart"):
        run(table, folder / "broken.csv")
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OutputFileError, match="space"),
    ):
        run(table, full)
    assert (folder / "strange.csv.part").read_text() == "not ours"


def test_two_runs_do_not_write_one_output(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    tried: list[str] = []

    def try_too(standing: Standing) -> None:
        if not tried:
            for restart in (False, True):
                with pytest.raises(OutputFileError) as caught:
                    run(table, output, restart=restart)
                tried.append(str(caught.value))

    run(table, output, show=try_too)
    assert ["another run is writing" in message for message in tried] == [True, True]
    assert len(rows_in(output)) == 12


def test_a_start_that_is_refused_lets_go_of_the_output(run: Run, table: Path) -> None:
    output = table.with_name("out.csv")
    with pytest.raises(Kill):
        run(table, output, show=killed_after(6))
    table.with_name("out.csv.part").write_bytes(b"")
    with pytest.raises(ResumeError, match="cut short") as kept:
        run(table, output)
    assert kept.value  # its traceback keeps alive what was open then
    assert run(table, output, restart=True) == Summary(rows=12, refused=4, resumed=0)


def test_input_that_ends_badly(run: Run, table: Path) -> None:
    """A file is refused before any work; of a pipe what came before is kept, and gone on with."""
    drawn = random.Random(1)
    text = "id,smiles\n" + "".join(f"{drawn.random()},C1C\n" for _ in range(2_000))
    whole = gzip.compress(text.encode())
    half = whole[: len(whole) // 2]
    path, output = table.with_name("big.csv.gz"), table.with_name("out.csv")
    path.write_bytes(half)
    with pytest.raises(InputFileError, match="cut short"):
        run(path, output)
    assert not output.with_name("out.csv.journal").exists()
    with pytest.raises(InputFileError, match="cut short"):
        run(half, output, kind="csv", chunk=100)
    summary = run(whole, output, kind="csv", chunk=100)
    assert 500 < summary.resumed < 1_500
    assert summary.rows == summary.refused == 2_000


def test_a_full_disk_is_said_and_gone_on_from(table: Path, bundle: Path) -> None:
    """A limit of the size of files stands for the disk: the same write fails in the same way."""
    script = (
        "import sys, resource, signal, qm9flow\n"
        "from qm9flow.errors import OutputFileError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "model = qm9flow.load(sys.argv[1], device='cpu')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    model.predict_file(sys.argv[2], sys.argv[3], ['gap'], chunk=2, workers=1)\n"
        "except OutputFileError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "done = model.predict_file(sys.argv[2], sys.argv[3], ['gap'], chunk=2, workers=1)\n"
        "print(done.rows, done.resumed)\n"
    )
    output = table.with_name("out.csv")
    command = [sys.executable, "-c", script, str(bundle), str(table), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith(f"cannot write {output}: File too large")
    rows, resumed = map(int, last.split())
    assert rows == 12
    assert 0 < resumed < 12
    assert len(rows_in(output)) == 12


def test_a_folder_that_cannot_be_written(run: Run, table: Path) -> None:
    if os.geteuid() == 0:
        output = Path("/proc/out.csv")  # not even root makes files there
    else:
        folder = table.parent / "closed"
        folder.mkdir(mode=0o500)
        output = folder / "out.csv"
    with pytest.raises(OutputFileError, match="cannot write"):
        run(table, output)


def test_parquet_without_pyarrow_says_what_to_install(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match="pip install pyarrow"):
        run(table, table.with_name("out.parquet"))
    assert not table.with_name("out.parquet.journal").exists()


def test_an_empty_table_gives_an_empty_table(run: Run, table: Path) -> None:
    table.write_text("smiles,note\n")
    for name in ("out.csv", "out.parquet", "out.jsonl"):
        assert run(table, table.with_name(name)).rows == 0
    assert table.with_name("out.csv").read_text().startswith("smiles,note,gap,mu,in_domain")
    assert table.with_name("out.jsonl").read_bytes() == b""


def test_the_reader_is_never_far_ahead(model: Model, pool: MoleculePool) -> None:
    """A pipe that never ends is answered as it comes."""

    class Endless(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            line = b"C1C first\n"
            buffer[: len(line)] = line
            self.given += 1
            return len(line)

    stream, output = Endless(), io.BytesIO()
    engine = Engine(model.predictor, NAME, pool)
    rows = Source("-", "smi", stdin=stream)  # type: ignore[arg-type]
    with pytest.raises(Kill):
        predict_file(rows, output, engine, Options(("gap",), 3), killed_after(60))
    assert output.getvalue().count(b"\n") == 61
    assert stream.given < 60 + 3 * (AHEAD + 2) + 10


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from(
                ["C", "O", "C1C", "", "C\x00", '"C', "[Na]", "C.C", "\udcff", "x" * 3000]
            ),
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        ),
        max_size=9,
    ),
    kind=st.sampled_from(["csv", "jsonl", "parquet"]),
)
def test_rows_in_are_rows_out(
    cells: list[tuple[str, str]],
    kind: str,
    run: Run,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("smiles", "error"), *cells])
    source, output = folder / "in.csv", folder / f"out.{kind}"
    source.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
    summary = run(source, output)
    assert summary.rows == len(cells)
    assert summary.refused == sum(smiles not in ("C", "O") for smiles, _ in cells)
    assert summary.renamed == (
        "'error_code' -> 'qm9flow_error_code'",
        "'error' -> 'qm9flow_error'",
    )
    if kind == "csv":
        with Source(output) as made:
            assert [row.cells[:2] for row in made.reader.rows()] == cells
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4e6
