"""`qm9flow study`: what is refused before any work."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from qm9flow.cli.main import cli
from qm9flow.errors import ConfigError, StudyError

URL = "postgresql+psycopg://me:secret@127.0.0.1:9/studies"


def test_a_password_that_mlflow_run_has_recorded_is_refused(
    stores_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
    result = CliRunner().invoke(cli, ["study", "run", "--storage", URL])
    assert isinstance(result.exception, ConfigError)
    said = str(result.exception)
    assert "mlflow gc --run-ids 0123456789abcdef0123456789abcdef" in said
    assert "PGPASSWORD" in said
    assert "secret" not in said


def test_a_storage_that_is_away_is_named_without_its_password(stores_in: Path) -> None:
    pytest.importorskip("psycopg")
    result = CliRunner().invoke(cli, ["study", "list", "--storage", URL])
    assert isinstance(result.exception, StudyError)
    assert "postgresql+psycopg://me:***@127.0.0.1:9/studies" in str(result.exception)
