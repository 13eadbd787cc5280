"""What is written: columns with names of their own, and files that hold what they were given."""

import gzip
import io
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.bulk.columns import Column, ModelName, named, own_columns, own_values
from qm9flow.bulk.meter import Meter, Standing, duration
from qm9flow.bulk.readers.formats import Source
from qm9flow.bulk.writers.formats import OutputFormat, format_of, make_writer
from qm9flow.bulk.writers.parquet import ParquetWriter
from qm9flow.errors import ConfigError, InvalidSmilesError
from qm9flow.inference.prediction import Domain, Prediction

COLUMNS = [
    Column("smiles"),
    Column("note"),
    Column("gap", "number", "eV"),
    Column("conformers", "count"),
    Column("in_domain", "truth"),
]
TEXT = st.text(max_size=12)
CELL = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
)
ROWS = st.lists(
    st.tuples(
        CELL,
        CELL,
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.integers(0, 100),
        st.none() | st.booleans(),
    ),
    max_size=8,
)


def written(name: str, chunks: list[list[tuple]], folder: Path) -> Path:
    """A file made as a run makes it."""
    path = folder / name
    writer = make_writer(*format_of(path), COLUMNS, {"model": "qm9flow"})
    part = folder / f"{name}.part"
    part.write_bytes(writer.head() + b"".join(writer.chunk(rows) for rows in chunks))
    writer.finish(part, path)
    assert [item.name for item in folder.iterdir()] == [name]
    return path


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, name=st.sampled_from(["a.csv", "a.tsv", "a.csv.gz"]))
def test_cells_of_a_table_come_back(
    rows: list[tuple], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(name, [rows, []], tmp_path_factory.mktemp("table"))
    with Source(path) as source:
        assert source.reader.columns == tuple(column.name for column in COLUMNS)
        found = [row.cells for row in source.reader.rows()]
    assert [cells[:2] for cells in found] == [row[:2] for row in rows]
    for cells, row in zip(found, rows, strict=True):
        assert (float(cells[2]) if cells[2] else None) == row[2]
        assert (int(cells[3]) if cells[3] else None) == row[3]
        assert {"": None, "true": True, "false": False}[cells[4]] == row[4]


def plain(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, name=st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.parquet"]))
def test_typed_files_hold_the_rows(
    rows: list[tuple], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from pyarrow import parquet

    path = written(name, [rows[:3], rows[3:]], tmp_path_factory.mktemp("typed"))
    if name == "a.parquet":
        table = parquet.read_table(path)
        found = table.to_pylist()
        assert json.loads(table.schema.metadata[b"qm9flow"]) == {"model": "qm9flow"}
        assert table.schema.field("gap").metadata == {b"unit": b"eV"}
    else:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if name.endswith(".gz") else raw
        found = [json.loads(line) for line in raw.decode().split("\n")[:-1]]
    names = [column.name for column in COLUMNS]
    expected = [(plain(row[0]), plain(row[1]), *row[2:]) for row in rows]
    assert found == [dict(zip(names, row, strict=True)) for row in expected]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_names_that_unicode_makes_one_stay_apart(kind: OutputFormat, tmp_path: Path) -> None:
    from pyarrow import parquet

    columns = [Column("\udce9"), Column("\udce8"), Column("\ufffd_2")]
    writer = make_writer(kind, False, columns, {})
    partial, output = tmp_path / "part", tmp_path / "output"
    partial.write_bytes(writer.head() + writer.chunk([("1", "2", "3")]))
    writer.finish(partial, output)
    is_table = kind == "parquet"
    found = (
        parquet.read_table(output).to_pylist()[0] if is_table else json.loads(output.read_text())
    )
    assert found == {"\ufffd": "1", "\ufffd_3": "2", "\ufffd_2": "3"}


def test_parquet_is_on_the_disk_before_its_rows_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    sync = os.fsync

    def watched(number: int) -> None:
        sync(number)
        synced.add((os.fstat(number).st_ino, os.fstat(number).st_size))

    monkeypatch.setattr(os, "fsync", watched)
    path = written("a.parquet", [[("C", "note", 0.5, 1, True)]], tmp_path)
    assert (path.stat().st_ino, path.stat().st_size) in synced


def test_parquet_of_many_small_chunks_takes_time_in_proportion(tmp_path: Path) -> None:
    started = time.monotonic()
    written("a.parquet", [[("C", "note", 0.5, 1, True)]] * 8_000, tmp_path)
    assert time.monotonic() - started < 10  # not to the square


def test_parquet_is_made_some_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("qm9flow.bulk.writers.parquet.GROUP_BYTES", 1000)
    rows = [(f"C{i}", "note", 0.5, 1, True) for i in range(100)]
    path = written("a.parquet", [rows[i : i + 10] for i in range(0, 100, 10)], tmp_path)
    file = parquet.ParquetFile(path)
    assert 1 < file.num_row_groups < 10
    assert file.read().column("smiles").to_pylist() == [row[0] for row in rows]


@pytest.mark.parametrize(
    ("inputs", "own", "expected"),
    [
        (("id", "smiles"), ("gap",), ["id", "smiles", "gap"]),
        (("gap", "smiles"), ("gap",), ["gap", "smiles", "qm9flow_gap"]),
        (("gap", "qm9flow_gap"), ("gap",), ["gap", "qm9flow_gap", "qm9flow_gap_2"]),
        (("Gap",), ("gap",), ["Gap", "qm9flow_gap"]),
        (("a", "a", "a"), (), ["a", "a_2", "a_3"]),
        (("a", "a", "a_2"), (), ["a", "a_3", "a_2"]),
        (("", "a", ""), (), ["column_1", "a", "column_3"]),
        (("", "column_1"), ("error",), ["column_1_2", "column_1", "error"]),
    ],
)
def test_every_column_has_a_name_of_its_own(
    inputs: tuple[str, ...], own: tuple[str, ...], expected: list[str]
) -> None:
    assert [column.name for column in named(inputs, [Column(name) for name in own])] == expected


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["mu"], ["gap", "gap_low", "gap_high"]),
        (["gap"], ["qm9flow_gap", "qm9flow_gap_low", "qm9flow_gap_high"]),
        (["gap_high"], ["qm9flow_gap", "qm9flow_gap_low", "qm9flow_gap_high"]),
        (["gap", "qm9flow_gap_low"], ["qm9flow_gap_2", "qm9flow_gap_low_2", "qm9flow_gap_high_2"]),
    ],
)
def test_an_interval_keeps_to_its_value(inputs: list[str], expected: list[str]) -> None:
    found = [column.name for column in named(inputs, own_columns(("gap", "alpha"), 0.9))]
    assert found[len(inputs) :][:4] == [*expected, "alpha"]


def test_what_belongs_together_is_renamed_together() -> None:
    own = own_columns((), None)
    found = [column.name for column in named(["error", "version"], own)]
    renamed = {name.removeprefix("qm9flow_") for name in found if name.startswith("qm9flow_")}
    assert renamed == {"error_code", "error", "model", "version"}
    assert named((), own) == own


@given(
    inputs=st.lists(st.sampled_from(["", "a", "a_2", "gap", "qm9flow_gap", "column_1", "error"])),
    level=st.sampled_from([None, 0.9]),
)
def test_names_never_repeat_and_first_ones_stay(inputs: list[str], level: float | None) -> None:
    own = own_columns(("gap",), level)
    found = [column.name for column in named(inputs, own)]
    assert len(set(found)) == len(found) == len(inputs) + len(own)
    for name in set(inputs) - {""}:
        assert found[inputs.index(name)] == name


@pytest.mark.parametrize("level", [None, 0.9])
def test_values_stand_under_their_names(level: float | None) -> None:
    model = ModelName("qm9flow", "3", "digest")
    good = Prediction(
        values={"gap": 9.3, "a": None},
        warnings=("large", "strange"),
        intervals={"gap": (9.1, 9.6), "a": None},
        domain=Domain(("strange",), 0.004),
        geometry="smiles",
        conformers=4,
    )
    names = [column.name for column in own_columns(("gap", "a"), level)]
    said = dict(zip(names, own_values(good, ("gap", "a"), level, model, ("cut",)), strict=True))
    expected = {
        "gap": 9.3,
        "a": None,
        "in_domain": False,
        "domain_score": 0.004,
        "geometry": "smiles",
        "conformers": 4,
        "warnings": "large; strange; cut",
        "error_code": None,
        "error": None,
        "model": "qm9flow",
        "version": "3",
    }
    ends = {"gap_low": 9.1, "gap_high": 9.6, "a_low": None, "a_high": None}
    assert said == (expected if level is None else expected | ends)
    if level is not None:
        assert names[:6] == ["gap", "gap_low", "gap_high", "a", "a_low", "a_high"]
    bad = own_values(InvalidSmilesError("no ring"), ("gap", "a"), level, model)
    refused = {n: v for n, v in zip(names, bad, strict=True) if v is not None}
    assert refused == {
        "error_code": "invalid_smiles",
        "error": "no ring",
        "model": "qm9flow",
        "version": "3",
    }


@pytest.mark.parametrize(
    ("output", "said", "words"),
    [
        ("a.xls", None, "--output-format"),
        ("a.gz", None, "--output-format"),
        ("a.parquet.gz", None, "compressed by itself"),
        (None, "parquet", "name a file"),
        ("a.csv", "xml", "no format 'xml'"),
    ],
)
def test_outputs_that_cannot_be(output: str | None, said: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        format_of(output and Path(output), said)


def test_parquet_names_units_of_duplicate_free_columns() -> None:
    writer = ParquetWriter(named(("gap",), own_columns(("gap",), 0.9)), {})
    import pyarrow

    schema = pyarrow.ipc.read_schema(io.BytesIO(writer.head()))
    assert schema.field("gap").type == pyarrow.string()
    assert schema.field("qm9flow_gap").metadata == {b"unit": b"eV"}
    assert schema.field("qm9flow_gap_high").type == pyarrow.float64()


def test_the_meter_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("qm9flow.bulk.meter.time.monotonic", lambda: next(times))
    seen: list[Standing] = []
    meter = Meter(10_000, seen.append)
    meter.tell(1000)  # where an earlier run came
    meter.tell(1500)
    meter.tell(6000)
    assert [standing.text for standing in seen] == [
        "1,000 of 10,000 rows (10%)",
        "1,500 of 10,000 rows (15%), 50.0 rows/s, 3 min left",
        "6,000 of 10,000 rows (60%), 250 rows/s, 16 s left",
    ]
    times = iter([0.0, 1.0])
    meter = Meter(None, seen.append)
    meter.tell(0)
    meter.tell(10)
    assert seen[-1].text == "10 rows, 10.0 rows/s"
    assert [duration(s) for s in (5, 600, 7000, 400_000)] == [
        "5 s",
        "10 min",
        "1 h 57 min",
        "4.6 days",
    ]
