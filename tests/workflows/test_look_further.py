"""The commands at the end of a study."""

import shlex
from pathlib import Path

import pytest

from qm9flow.tracking.stores import Stores
from qm9flow.workflows.look_further import look_further


def stores(folder: Path, tracking: str | None = None, storage: str | None = None) -> Stores:
    base = folder / "mlruns"
    return Stores(
        tracking or f"sqlite:///{folder}/mlflow.db",
        storage or f"sqlite:///{base}/optuna.db",
        base / "tensorboard",
        base / "state",
    )


def test_paths_with_blanks_are_quoted() -> None:
    folder = Path("/a place")
    lines = look_further(stores(folder), "my study")
    words = [shlex.split(line, comments=True) for line in lines]
    assert words[0] == ["mlflow", "ui", "--backend-store-uri", "sqlite:////a place/mlflow.db"]
    assert words[1] == ["optuna-dashboard", "sqlite:////a place/mlruns/optuna.db"]
    assert words[-1] == ["qm9flow", "report", "my study"]


def test_how_to_install_the_dashboard_is_said_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "# pip install optuna-dashboard" in look_further(stores(tmp_path), "one")[1]
    program = tmp_path / "optuna-dashboard"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "pip install" not in look_further(stores(tmp_path), "one")[1]


def test_another_storage_is_named_and_passwords_are_not() -> None:
    here = stores(
        Path("/here"), "http://me:secret@host:5000", "postgresql://me:secret@db:5432/optuna"
    )
    lines = look_further(here, "one")
    assert "secret" not in "\n".join(lines)
    assert lines[0].startswith("http://me:***@host:5000 ")
    assert "optuna-dashboard 'postgresql://me:***@db:5432/optuna'" in lines[1]
    assert lines[-1] == "qm9flow report one --storage 'postgresql://me:***@db:5432/optuna'"
