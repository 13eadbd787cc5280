"""`qm9flow serve` before a server is started."""

import signal
from pathlib import Path

import pytest

from qm9flow.cli.serve import _wanted, ending_signals
from qm9flow.errors import ConfigError


def test_under_nohup_the_end_of_the_terminal_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == [signal.SIGINT, signal.SIGTERM]
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "line",
    ['bundle = "some/folder"', "version = 3", 'alias = "previous"', 'handover = "some/file"'],
)
def test_an_option_that_would_do_nothing_is_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "serve.toml"
    file.write_text(line)
    with pytest.raises(ConfigError, match="would do nothing: write model ="):
        _wanted(file, {}, require_gpu=False)
