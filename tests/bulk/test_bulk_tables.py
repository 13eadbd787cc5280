"""CSV and TSV: whatever the bytes are, rows with their errors or one error that says the line."""

import csv
import gzip
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.bulk.readers.formats import INPUT_FORMATS, Source
from qm9flow.bulk.readers.lines import MAX_CHARACTERS
from qm9flow.bulk.rows import Row
from qm9flow.errors import InputFileError, MoleculeError, RowError


def source_of(content: bytes, kind: str = "csv", column: str | None = None) -> Source:
    return Source("-", kind, smiles_column=column, stdin=io.BytesIO(content))


def rows_of(content: bytes, kind: str = "csv", column: str | None = None) -> list[Row]:
    return list(source_of(content, kind, column).reader.rows())


def error_of(content: bytes, kind: str = "csv", column: str | None = None) -> str:
    with pytest.raises(InputFileError) as caught:
        rows_of(content, kind, column)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"id,smiles\n1,CCO\n2,O\n",
        b"id,smiles\r\n1,CCO\r\n2,O",
        b"id,smiles\r1,CCO\r2,O\r",
        b"\xef\xbb\xbfid,smiles\n\n1,CCO\n\n\n2,O\n\n",
        b"id;smiles\n1;CCO\n2;O\n",
        b"id\tsmiles\n1\tCCO\n2\tO\n",
        b'"id","smiles"\n"1","CCO"\n"2","O"\n',
        b"id,smiles\n1,CCO,,\n2,O,\n",
        gzip.compress(b"id,smiles\n1,CCO\n2,O\n", mtime=0),
        gzip.compress(b"id,smiles\n1,CCO\n", mtime=0) + gzip.compress(b"2,O\n", mtime=0),
    ],
)
def test_ways_to_write_the_same_table(content: bytes) -> None:
    source = source_of(content)
    assert source.reader.columns == ("id", "smiles")
    rows = list(source.reader.rows())
    assert [row.cells for row in rows] == [("1", "CCO"), ("2", "O")]
    assert [row.record for row in rows] == [{"smiles": "CCO"}, {"smiles": "O"}]


@pytest.mark.parametrize(
    ("header", "column", "expected"),
    [
        ("name,SMILES", None, "SMILES"),
        ("Canonical_SMILES,name", None, "Canonical_SMILES"),
        ("canonical_smiles,smiles", None, "smiles"),
        ("QED,Product Smiles", None, "Product Smiles"),
        ("a,b", "b", "b"),
        (" smiles ,b", None, "smiles"),
    ],
)
def test_the_column_of_smiles(header: str, column: str | None, expected: str) -> None:
    source = source_of(f"{header}\nCCO,CCO\n".encode(), column=column)
    assert source.smiles_column == expected
    assert next(source.reader.rows()).record == {"smiles": "CCO"}


@pytest.mark.parametrize(
    ("content", "column", "words"),
    [
        (b"", None, ["is empty", "header"]),
        (b"\n\n", None, ["is empty"]),
        (b"a,b\n1,2\n", None, ["no column of SMILES", "'a', 'b'", "--smiles-column"]),
        (b"CCO\nC\n", None, ["'CCO'", "--format smi"]),
        (b"a,smiles\n1,2\n", "c", ["no column 'c'", "'smiles'"]),
        (b"smiles,smiles\nC,C\n", None, ["2 columns"]),
        (b'"smiles\nC\n', None, ["header", "line 1", "quote"]),
        ("smiles\nC\n".encode("utf-16"), None, ["UTF-16", "UTF-8"]),
        (gzip.compress(b"smiles\nC\n", mtime=0)[:-3], None, ["cut short", "line 2"]),
        (gzip.compress(b"smiles\nC\n", mtime=0) + b"garbage", None, ["cannot be read on"]),
        (b"\x1f\x8bgarbage", None, ["standard input"]),
    ],
)
def test_files_that_are_no_table(content: bytes, column: str | None, words: list[str]) -> None:
    message = error_of(content, column=column)
    assert all(word in message for word in words), message


def test_a_long_gzip_that_is_cut_short_gives_the_rows_before() -> None:
    drawn = random.Random(0)
    lines = [f"{drawn.random()},C\n" for _ in range(20_000)]
    whole = gzip.compress(("id,smiles\n" + "".join(lines)).encode())
    rows = source_of(whole[: len(whole) // 2]).reader.rows()
    seen: list[Row] = []
    with pytest.raises(InputFileError, match="cut short") as caught:
        seen.extend(rows)
    assert 5_000 < len(seen) < 15_000
    assert all(row.cells[0] == line.split(",")[0] for row, line in zip(seen, lines, strict=False))
    assert f"line {len(seen) + 1:,}" in str(caught.value)


@pytest.mark.parametrize(
    ("line", "cells", "words"),
    [
        (b"1", ("1", ""), ["line 3", "1 cells", "header 2"]),
        (b"1,CCO,x,y", ("1", "CCO"), ["4 cells", "'x,y'"]),
        (b'1,"CCO', ("1", '"CCO'), ["line 3", "quote"]),
        (b'1,"C"CO', ("1", '"C"CO'), ["line 3", "quote"]),
        (b"1,C\x00C", ("1", "C\x00C"), None),
        (b"1,\xff\xfe", ("1", "\udcff\udcfe"), None),
        (b"1,", ("1", ""), None),
        (b'1,"C\nC"', ("1", "C\nC"), None),
    ],
)
def test_bad_rows_keep_their_place(
    line: bytes, cells: tuple[str, ...], words: list[str] | None
) -> None:
    rows = rows_of(b"id,smiles\n0,C\n" + line + b"\n2,O\n3,N\n")
    assert [row.cells for row in rows] == [("0", "C"), cells, ("2", "O"), ("3", "N")]
    record = rows[1].record
    if words is None:
        assert record == {"smiles": cells[1]}
    else:
        assert isinstance(record, RowError)
        assert record.code == "bad_row"
        assert all(word in str(record) for word in words), str(record)


def test_lines_and_cells_beyond_the_limit_are_rows_with_an_error() -> None:
    line = b"1," + b"C" * (MAX_CHARACTERS + 10)
    cell = b'1,"' + b"C\n" * 100_000 + b'"'
    for long, said in ((line, "longer than 1,000,000"), (cell, "a cell of more than 131,072")):
        rows = rows_of(b"id,smiles\n0,C\n" + long + b"\n2,O\n")
        assert rows[0].cells == ("0", "C")
        assert said in str(rows[1].record)
        assert rows[-1].cells == ("2", "O")


def test_rows_joined_by_a_stray_quote_are_named() -> None:
    rows = rows_of(b'id,smiles\n0,"C\n1,O\n2,C",x\n3,N\n')
    assert "lines 2 to 4" in str(rows[0].record)
    assert rows[1].cells == ("3", "N")


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=20),
    delimiter=st.sampled_from(",;\t"),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_whatever_python_writes_is_read_as_it_was(
    rows: list[tuple[str, ...]], delimiter: str, ending: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "smiles", "note"), *rows])
    found = rows_of(text.getvalue().encode())
    assert [row.cells for row in found] == rows
    assert [row.record for row in found] == [{"smiles": row[1]} for row in rows]


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"id,smiles\n", b"smiles\n", b"3\nx\n", b"", b"\x1f\x8b\x08"]),
    content=st.one_of(
        st.binary(max_size=200),
        st.text('Cc,"\n\r\t 0123;>$<M END=', max_size=200).map(str.encode),
    ),
    kind=st.sampled_from(INPUT_FORMATS),
)
def test_any_bytes_are_rows_or_an_error_of_the_file(head: bytes, content: bytes, kind: str) -> None:
    try:
        source = source_of(head + content, kind)
        rows = list(source.reader.rows())
    except InputFileError:
        return
    for row in rows:
        assert len(row.cells) == len(source.reader.columns)
        assert isinstance(row.record, dict | MoleculeError)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.sampled_from(["0,C", '1,"C', '2,C"C', '"3,C', "4", '5,"C"C', "6,C,x"])))
def test_no_line_is_lost_among_bad_ones(rows: list[str]) -> None:
    """Each line is in a row: its own, or one that a quote joins."""
    found = rows_of("\n".join(["id,smiles", *rows]).encode())
    assert len(found) <= len(rows)
    held = "\n".join(",".join(row.cells) + str(row.record) for row in found)
    assert all(row[:2].strip(',"') in held for row in rows)
    if not any('"' in row for row in rows):
        assert [row.cells[0] for row in found] == [row[0] for row in rows]
