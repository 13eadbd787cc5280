"""`qm9flow report`: which study, where to, what it says."""

from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from qm9flow.cli.main import cli
from qm9flow.errors import StudyError
from qm9flow.tuning.records import NOTE_IDENTITY


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two studies of one trial each that has not ended; `later` changed last."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "mlruns").mkdir()
    for name in ("earlier", "later"):
        url = f"sqlite:///{tmp_path}/mlruns/optuna.db"
        study = optuna.create_study(storage=url, study_name=name)
        study.set_user_attr(NOTE_IDENTITY, {})
        study.ask()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "study"),
    [
        ([], "later"),
        ([""], "later"),
        (["--study-name", "", "--storage", ""], "later"),
        (["earlier"], "earlier"),
        (["--study-name", "earlier"], "earlier"),
    ],
)
def test_a_report_of_an_unfinished_study(home: Path, words: list[str], study: str) -> None:
    result = CliRunner().invoke(cli, ["report", *words, "--output", "mine"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"report of study {study}: {home}/mine/report.html")
    assert "not in it: the champion: the study has no run in MLflow yet" in result.output
    assert f"optuna-dashboard sqlite:///{home}/mlruns/optuna.db" in result.output
    assert f"mlflow ui --backend-store-uri sqlite:///{home}/mlflow.db" in result.output
    assert f"<h1>{study}</h1>" in (home / "mine" / "report.html").read_text()
    assert not (home / "mlflow.db").exists()  # looking makes no database


def test_two_names_are_refused(home: Path) -> None:
    result = CliRunner().invoke(cli, ["report", "earlier", "--study-name", "later"])
    assert result.exit_code == 2
    assert "two studies are named, earlier and later" in result.output


def test_a_study_without_a_run_needs_a_folder(home: Path) -> None:
    result = CliRunner().invoke(cli, ["report"])
    assert isinstance(result.exception, StudyError)
    assert "--output" in str(result.exception)
