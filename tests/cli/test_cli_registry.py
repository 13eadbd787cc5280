"""`models`, `promote`, `rollback`, `export`: what a user sees of the registry."""

import json
from pathlib import Path
from typing import Any

import pytest
import served
from click.testing import CliRunner, Result
from registering import Registry, open_registry

from qm9flow.cli.main import cli
from qm9flow.data.store import Dataset
from qm9flow.errors import RegistryError
from qm9flow.registry.checksum import folder_sha256


@pytest.fixture
def registry(stores_in: Path, dataset: Dataset) -> Registry:
    """An empty registry in the current folder."""
    return open_registry(stores_in, served.bundle(dataset))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def answer(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["models", "promote", "rollback", "export"])
def test_help_has_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    qm9flow {name}" in result.output
    assert "--json" in result.output
    assert "--tracking-uri" in result.output


def test_empty_registry_says_what_to_do(registry: Registry) -> None:
    assert "make study" in run("models").output
    assert answer("models") == []
    for arguments in (["promote", "1"], ["rollback"], ["export", "--output", "there"]):
        error = run(*arguments).exception
        assert isinstance(error, RegistryError)
        assert "qm9flow study run" in str(error)


def test_a_life_in_the_registry(registry: Registry) -> None:
    registry.add("first")
    assert "Version 1 is champion: no champion yet" in run("promote", "1").output

    registry.add("worse", factor=2.0)
    refused = run("promote", "2")
    assert refused.exit_code == 1
    assert "Version 2 does not pass the gate and is challenger" in refused.output
    assert "of version 1" in refused.output

    registry.add("better", factor=0.5)
    assert answer("promote", "3")["decision"]["reason"] == "better"
    assert "Version 1 is champion again" in run("rollback").output
    forced = run("promote", "challenger", "--force")
    assert "Version 2 is champion, against the gate" in forced.output

    listed = {item["version"]: item["aliases"] for item in answer("models")}
    assert listed == {3: [], 2: ["champion"], 1: ["previous"]}


def test_refusal_as_json_has_the_figures(registry: Registry) -> None:
    registry.add("first")
    run("promote", "1")
    registry.add("same")
    result = run("promote", "2", "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["alias"] == "challenger"
    assert said["decision"]["difference"] == 0
    assert said["decision"]["upper_bound"] == 0


def test_table_shows_aliases_score_and_test_errors(registry: Registry) -> None:
    version = registry.add("first")
    run("promote", "1")
    head, line = run("models").output.splitlines()
    assert "test u0/eV" in head
    assert line.startswith("1 ")
    assert "champion" in line
    assert f"{version.score:.5f}" in line
    assert line.count("0.5") >= 4


def test_version_that_is_not_there(registry: Registry) -> None:
    registry.add("first")
    error = run("promote", "7").exception
    assert isinstance(error, RegistryError)
    assert "there are 1" in str(error)


def test_export_writes_the_bundle(registry: Registry) -> None:
    registry.add("first")
    run("promote", "1")
    said = answer("export", "--output", "there")
    assert said["version"] == 1
    assert "model.onnx" in said["files"]
    assert folder_sha256(registry.folder / "there") == folder_sha256(registry.bundle)
    assert "Wrote version 1" in run("export", "1", "--output", "other").output


def test_another_store_can_be_named(registry: Registry, tmp_path: Path) -> None:
    registry.add("first")
    (registry.folder / "mlflow.db").rename(tmp_path / "moved.db")
    uri = f"sqlite:///{tmp_path}/moved.db"
    assert len(answer("models", "--tracking-uri", uri)) == 1
    assert "there is no store" in str(run("models").exception)
