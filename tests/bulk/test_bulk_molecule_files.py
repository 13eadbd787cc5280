"""SMILES files, SDF, XYZ and extended XYZ as rows."""

import contextlib
import gc
import gzip
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qm9flow.bulk.readers import scan
from qm9flow.bulk.readers.formats import Source, format_of
from qm9flow.bulk.readers.lines import MAX_CHARACTERS
from qm9flow.bulk.rows import Row
from qm9flow.errors import ConfigError, InputFileError, MoleculeError, RowError
from qm9flow.molecules.xyz import from_xyz

BLOCK = """water
  made by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1173 O   0  0
    0.0000    0.7572   -0.4692 H   0  0
    0.0000   -0.7572   -0.4692 H   0  0
  1  2  1  0
  1  3  1  0
M  END
"""
WATER = "O 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692\n"


def piped(text: str, kind: str) -> Source:
    return Source("-", kind, stdin=io.BytesIO(text.encode()))


def rows_of(text: str, kind: str) -> list[Row]:
    return list(piped(text, kind).reader.rows())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"),
        ("a.TSV.gz", "tsv"),
        ("a.smi", "smi"),
        ("a.b.sdf.gz", "sdf"),
        ("a.extxyz", "xyz"),
    ],
)
def test_formats_go_by_the_suffix(name: str, kind: str) -> None:
    assert format_of(Path(name)) == kind


@pytest.mark.parametrize("name", ["a.xls", "a", "-", "a.gz"])
def test_a_suffix_that_says_nothing_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="--format"):
        format_of(name)


def test_options_for_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.smi"
    path.write_text("C\n")
    with pytest.raises(ConfigError, match="--smiles-column is for CSV"):
        Source(path, smiles_column="x")
    with pytest.raises(ConfigError, match="--geometry is for XYZ"):
        Source(path, geometry="dft")
    (tmp_path / "a.xyz").write_text(f"3\nwater\n{WATER}")
    with pytest.raises(ConfigError, match="geometry must be dft or approximate, got 'smiles'"):
        Source(tmp_path / "a.xyz", geometry="smiles")
    with pytest.raises(InputFileError, match="No such file"):
        Source(tmp_path / "none.smi")


@pytest.mark.parametrize("content", ["C".encode("utf-16"), b"\x1f\x8bno gzip"])
def test_a_file_that_is_refused_is_closed(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[io.FileIO] = []

    class Kept(io.FileIO):
        def __init__(self, path: str) -> None:
            super().__init__(path)
            opened.append(self)

    monkeypatch.setattr(io, "FileIO", Kept)
    (tmp_path / "a.smi").write_bytes(content)
    with pytest.raises(InputFileError) as kept:  # its traceback would keep an open file alive
        Source(tmp_path / "a.smi")
    assert kept.value
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize("content", [b"C\n", gzip.compress(b"C\n", mtime=0), "C".encode("utf-16")])
def test_standard_input_stays_open(content: bytes) -> None:
    stdin = io.BytesIO(content)
    with contextlib.suppress(InputFileError), Source("-", "smi", stdin=stdin) as source:
        assert len(list(source.reader.rows())) == 1
        del source
    gc.collect()
    assert not stdin.closed


def test_a_file_that_is_gzipped_twice_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.smi.gz"
    path.write_bytes(gzip.compress(gzip.compress(b"C\n")))
    with pytest.raises(InputFileError, match=r"a\.smi\.gz is gzipped twice"):
        Source(path)


def test_smiles_with_and_without_names(tmp_path: Path) -> None:
    text = "SMILES Name\n# alcohols\nCO methanol\n\n  CCO\tethanol, wet  \nC1CC\nO |x| y\r\n"
    assert [row.cells for row in rows_of(text, "smi")] == [
        ("CO", "methanol"),
        ("CCO", "ethanol, wet"),
        ("C1CC", ""),
        ("O", "|x| y"),
    ]
    path = tmp_path / "a.smi"
    path.write_text(text)
    assert Source(path).reader.total == 4
    long = rows_of("C\n" + "C" * (MAX_CHARACTERS + 1) + "\nO\n", "smi")
    assert [row.cells[0] for row in long] == ["C", "", "O"]
    assert "line 2" in str(long[1].record)
    assert rows_of("", "smi") == []


def test_data_items_of_an_sdf_become_columns(tmp_path: Path) -> None:
    first = f"{BLOCK}> <id>\n1\n\n>  25 <note>  (7)\ntwo\nlines > <x>\n\n$$$$\n"
    second = f"{BLOCK}> <charge>\n0\n> <id>\n2\n\n$$$$\n\n"
    path = tmp_path / "two.sdf"
    path.write_text(first + second, newline="\r\n")
    with Source(path, geometry="dft") as source:
        assert source.reader.columns == ("name", "id", "note", "charge")
        assert source.reader.total == 2
        rows = list(source.reader.rows())
    assert [row.cells for row in rows] == [
        ("water", "1", "two\nlines > <x>", ""),
        ("water", "2", "", "0"),
    ]
    assert rows[0].record == {"sdf": BLOCK.rstrip("\n"), "geometry": "dft"}


def test_records_of_an_sdf_that_are_none_keep_their_place() -> None:
    long = "x" * 80 + "\n"
    text = f"{BLOCK}$$$$\nnonsense\n$$$$\n{long * 20_000}$$$$\n{BLOCK}"
    rows = rows_of(text, "sdf")
    assert [row.cells[0] for row in rows] == ["water", "nonsense", "x" * 80, "water"]
    assert isinstance(rows[2].record, RowError)
    assert "line 14 on" in str(rows[2].record)


def test_a_pipe_tells_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PIPE_RECORDS", 2)
    records = [f"{BLOCK}> <{name}>\n1\n\n$$$$\n" for name in ("a", "b", "c")]
    source = piped("".join(records), "sdf")
    rows = list(source.reader.rows())
    assert source.reader.columns == ("name", "a", "b")
    assert source.reader.total is None
    assert [row.cells[1:] for row in rows] == [("1", ""), ("", "1"), ("", "")]
    assert rows[1].remarks == ()
    assert "left out: c" in rows[2].remarks[0]


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    """As `<(zcat many.sdf.gz)` is in a shell."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with written_to(path, f"{BLOCK}> <id>\n1\n\n$$$$\n{BLOCK}"):
        source = Source(path, "sdf")
        rows = list(source.reader.rows())
    assert source.lines.is_pipe
    assert source.reader.total is None
    assert [row.cells for row in rows] == [("water", "1"), ("water", "")]


@contextmanager
def written_to(path: Path, text: str) -> Iterator[None]:
    """Writes to a pipe while somebody reads it."""
    thread = threading.Thread(target=path.write_text, args=(text,))
    thread.start()
    yield
    thread.join(10)


def test_too_many_names_are_refused() -> None:
    items = "".join(f"> <n{i}>\n1\n\n" for i in range(1_001))
    with pytest.raises(InputFileError, match="1,000 different names"):
        piped(BLOCK + items, "sdf")


def test_frames_of_an_xyz(dataset: object) -> None:
    qm9 = (
        "3\ngdb 3\t157.7\n" + WATER.replace("\n", "\t-0.5\n") + "1341.3 1650.2\nO\tO\nInChI=1S/x\n"
    )
    text = f"3\nwater\n{WATER}\n\n{qm9}3\n\n{WATER}"
    rows = rows_of(text, "xyz")
    assert [row.cells for row in rows] == [("water",), ("gdb 3\t157.7",), ("",)]
    for row in rows:
        assert not isinstance(row.record, MoleculeError)
        assert from_xyz(row.record["xyz"]).numbers.tolist() == [8, 1, 1]


def test_many_frames_take_time_in_proportion() -> None:
    started = time.monotonic()
    assert len(rows_of(f"3\nwater\n{WATER}" * 40_000, "xyz")) == 40_000
    assert time.monotonic() - started < 10  # not to the square


def test_extended_xyz_gives_its_pairs(tmp_path: Path) -> None:
    first = 'Properties=species:S:1:pos:R:3 energy=-76.4 pbc="F F F" note="a b=c" x=[1, 2] left'
    second = "forces={1 2} Properties=forces:R:3:species:S:1:pos:R:3 energy=-1"
    moved = "".join(f"1.0 2.0 3.0 {line}\n" for line in WATER.splitlines())
    path = tmp_path / "two.extxyz"
    path.write_text(f"3\n{first}\n{WATER}3\n{second}\n{moved}")
    with Source(path) as source:
        assert source.reader.columns == ("comment", "energy", "pbc", "note", "x", "forces")
        assert source.reader.total == 2
        rows = list(source.reader.rows())
    assert rows[0].cells == ("left", "-76.4", "F F F", "a b=c", "[1, 2]", "")
    assert rows[1].cells == ("", "-1", "", "", "", "{1 2}")
    molecules = [from_xyz(row.record["xyz"]) for row in rows]
    assert molecules[0].positions.tolist() == molecules[1].positions.tolist()


def test_only_the_outer_quotes_of_a_value_are_left_out() -> None:
    comment = """Properties=species:S:1:pos:R:3 note="the 'best'" other='say "x"' bare='"""
    source = piped(f"3\n{comment}\n{WATER}", "xyz")
    (row,) = source.reader.rows()
    assert dict(zip(source.reader.columns, row.cells, strict=True)) == {
        "comment": "",
        "note": "the 'best'",
        "other": 'say "x"',
        "bare": "'",
    }


def test_a_frame_beyond_the_limit_is_a_row_with_an_error() -> None:
    good = f"3\nwater\n{WATER}"
    huge = "40000\nhuge\n" + "H 0.000000 0.000000 0.000000\n" * 40_000
    first, second, third = rows_of(good + huge + good, "xyz")
    assert isinstance(second.record, RowError)
    assert "the frame from line 6 on is longer than 1,000,000 characters" in str(second.record)
    assert second.cells == ("huge",)
    assert first.record == third.record


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("4\nfour announced\n" + WATER, "announces 4"),
        ("2\ntwo announced\n" + WATER, "expected the end after 2"),
        ("junk\nmore junk\n", "number of atoms"),
        ("3\nbroken\n" + WATER.replace("H", "Xx"), "Xx"),
        ("0\nnothing\n", "is 0"),
        ("999999999\nmany\n" + WATER, "999999999 atoms"),
    ],
)
def test_a_bad_frame_costs_itself_only(bad: str, words: str) -> None:
    good = f"3\nwater\n{WATER}"
    rows = rows_of(good + bad + good, "xyz")
    if bad.startswith("junk"):  # what is no frame belongs to the one before
        assert len(rows) == 2
        with pytest.raises(MoleculeError, match="expected the end"):
            from_xyz(rows[0].record["xyz"])
        rows = rows_of(bad + good, "xyz")
        rows = [*rows_of(good, "xyz"), *rows]
    assert len(rows) == 3
    with pytest.raises(MoleculeError, match=words):
        from_xyz(rows[1].record["xyz"])
    for row in (rows[0], rows[2]):
        assert from_xyz(row.record["xyz"]).numbers.tolist() == [8, 1, 1]


def test_one_molecule_without_its_number_of_atoms() -> None:
    (row,) = rows_of(WATER, "xyz")
    assert from_xyz(row.record["xyz"]).numbers.tolist() == [8, 1, 1]


def test_a_file_of_one_endless_line_is_one_row() -> None:
    (row,) = rows_of("x" * (2 * MAX_CHARACTERS), "xyz")
    assert isinstance(row.record, RowError)
