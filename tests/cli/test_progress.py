"""The progress bar: there on a terminal, gone where there is none."""

import io
import sys

import pytest

from qm9flow.cli.progress import progress_bar


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
