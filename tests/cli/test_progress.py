"""The progress bar: there on a terminal, gone where there is none."""

import io
import sys

import pytest

from qm9flow.bulk.meter import Standing
from qm9flow.cli import progress as progress_module
from qm9flow.cli.progress import progress_bar, row_progress


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "is_shown"), [(Terminal(), True), (io.StringIO(), False)])
def test_bar_vanishes_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, is_shown: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar() as progress:
        progress("reading", 1, 4)
    assert ("reading: " in stream.getvalue()) is is_shown
    assert ("1/4" in stream.getvalue()) is is_shown
    if not is_shown:
        assert stream.getvalue() == ""


STANDING = Standing(5_120, 20_480, 52.14, 300.0)


@pytest.mark.parametrize("standing", [STANDING, Standing(5_120, None, 52.14, None)])
def test_rows_have_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, standing: Standing) -> None:
    stream = Terminal()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", stream)
    with row_progress() as show:
        show(standing)
    assert standing.text in stream.getvalue()
    assert stream.getvalue().endswith("\r")


def test_long_runs_get_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with row_progress() as show:
        show(STANDING)
        assert capsys.readouterr().err == ""
        monkeypatch.setattr(progress_module, "LINE_EVERY_S", 0.0)
        show(STANDING)
    assert capsys.readouterr().err == "5,120 of 20,480 rows (25%), 52.1 rows/s, 5 min left\n"
