from pathlib import Path

import pytest

from qm9flow import locations
from qm9flow.errors import ConfigError


def test_default_store_is_mlflows_own_in_the_current_folder(stores_in: Path) -> None:
    uri = locations.tracking_uri()
    assert uri == f"sqlite:///{stores_in}/mlflow.db"
    assert locations.base_folder(uri) == stores_in / "mlruns"


def test_option_goes_before_environment(stores_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert locations.tracking_uri() == "http://host:5000"
    assert locations.tracking_uri("") == "http://host:5000"
    assert locations.tracking_uri("sqlite:///other.db") == f"sqlite:///{stores_in}/other.db"
    assert locations.base_folder("http://host:5000") == stores_in / "mlruns"


def test_absolute_sqlite_path_stays(stores_in: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/er.db"
    assert locations.tracking_uri(uri) == uri
    assert locations.base_folder(uri) == tmp_path / "deep" / "mlruns"


def test_database_in_memory_has_no_file() -> None:
    assert locations.sqlite_file("sqlite:///:memory:") is None


def test_path_is_no_uri() -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///mlflow\.db"):
        locations.tracking_uri("./mlruns")


def test_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QM9FLOW_CACHE", str(tmp_path))
    assert locations.cache_folder() == tmp_path
    monkeypatch.delenv("QM9FLOW_CACHE")
    assert locations.cache_folder().name == "qm9flow"


def test_a_users_path_is_taken_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert locations.callers_path(Path("my.toml")) == tmp_path / "project" / "my.toml"
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert locations.callers_path(Path("my.toml")) == tmp_path / "my.toml"
    assert locations.callers_path(Path("/etc/my.toml")) == Path("/etc/my.toml")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://me:secret@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me:s@cr/et@host/db", "postgresql://me:***@host/db"),
        (
            "postgresql://host/db?user=me&password=secret&a=b",
            "postgresql://host/db?user=me&password=***&a=b",
        ),
        (
            "no answer of https://me:secret@host/api (timed out)",
            "no answer of https://me:***@host/api (timed out)",
        ),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("sqlite:////home/me@work/a.db", "sqlite:////home/me@work/a.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_passwords_are_not_shown(text: str, shown: str) -> None:
    assert locations.without_password(text) == shown
