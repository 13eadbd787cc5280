"""Tables that are missing, changed or cut short, as a user would meet them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qm9flow.data import source, store
from qm9flow.errors import CacheError, SourceCorruptError, SourceMissingError


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed `qm9pack` whose tables are links to the real ones; replace one to damage it."""
    real = source.find_tables()
    site = tmp_path / "site"
    tables = site / "qm9pack" / "data"
    tables.mkdir(parents=True)
    (site / "qm9pack-1.0.3.dist-info").mkdir()
    (site / "qm9pack-1.0.3.dist-info" / "METADATA").write_text("Name: qm9pack\nVersion: 1.0.3\n")
    for name, path in real.items():
        (tables / name).symlink_to(path)
    monkeypatch.syspath_prepend(str(site))
    return tables


def test_fake_package_is_found(fake_package: Path) -> None:
    assert source.find_tables() == {name: fake_package / name for name in source.TABLES}


def test_missing_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(SourceMissingError, match=r"qm9pack==1\.0\.3"):
        store.open_dataset(tmp_path)


def test_missing_table_names_the_file(fake_package: Path, tmp_path: Path) -> None:
    (fake_package / "qm9_part2.csv").unlink()
    with pytest.raises(SourceMissingError, match=r"qm9_part2\.csv.*pip install"):
        store.open_dataset(tmp_path / "cache")


def _cut_short(content: bytes) -> bytes:
    return content[:-10]


def _changed(content: bytes) -> bytes:
    return content.replace(b"1.6256", b"1.6257", 1)


@pytest.mark.parametrize("harm", [_cut_short, _changed, lambda content: b""])
def test_other_table_is_refused(
    fake_package: Path, tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    path = fake_package / "qm9_part1.csv"
    content = harm(path.read_bytes())
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(SourceCorruptError, match=r"qm9_part1\.csv.*SHA-256.*pip install"):
        store.open_dataset(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_cut_short_polarizability_is_refused(fake_package: Path) -> None:
    path = fake_package / "qm9_polarizability.csv"
    content = path.read_bytes()[:1000]
    path.unlink()
    path.write_bytes(content)
    tables = {"qm9_polarizability.csv": path}
    with pytest.raises(SourceCorruptError, match=r"1,000 bytes"):
        source.read_records(tables)


def test_unwritable_cache_is_noticed_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    seen: list[str] = []
    with pytest.raises(CacheError, match="QM9FLOW_CACHE"):
        store.open_dataset(tmp_path / "file" / "cache", lambda what, done, total: seen.append(what))
    assert seen == []


def test_package_is_never_imported() -> None:
    """Its import fails where setuptools has no pkg_resources."""
    import sys

    source.find_tables()
    assert "qm9pack" not in sys.modules
