"""`qm9flow evaluate`: what a user sees, and what is kept."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import few_geometries
import pytest
import served
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from registering import Registry, open_registry

from qm9flow.cli.main import cli
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.errors import BundleError, CacheError, ConfigError, RegistryError

QUICK = ("--limit", "60", "--targets", "gap,mu", "--worst", "2")


@pytest.fixture
def registry(stores_in: Path, dataset: Dataset) -> Registry:
    """A registry in the current folder, with version 1 as champion."""
    registry = open_registry(stores_in, served.bundle(dataset))
    registry.add("first")
    assert run("promote", "1").exit_code == 0
    return registry


@pytest.fixture
def bundle(stores_in: Path, dataset: Dataset) -> Path:
    """A copy of a bundle, to be damaged."""
    return Path(shutil.copytree(served.bundle(dataset), stores_in / "some" / "bundle"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def answer(*arguments: str) -> Any:
    result = run("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def logged(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    return {Path(item.path).name for item in client.list_artifacts(run_id, folder)}


def test_a_version_is_evaluated_into_its_run(registry: Registry) -> None:
    result = run("evaluate", *QUICK)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("version 1 on the first 60 test molecules of its split")
    assert f"logged to run {registry.run_id}" in result.stdout
    there = logged(registry.client, registry.run_id, "evaluation/version_1/test_first_60")
    assert {"evaluation.json", "parity.png", "worst.png", "targets.csv"} <= there
    assert not registry.client.get_run(registry.run_id).data.metrics  # of 60 molecules only


@pytest.mark.usefixtures("unpainted")
def test_the_pretrained_model_says_how_its_intervals_hold() -> None:
    said = answer("--model", "pretrained", "--limit", "300", "--worst", "1")
    assert said["coverage"]["level"] == 0.9
    assert said["coverage"]["calibration_molecules"] == 5000
    low, high = said["coverage"]["band"]
    assert all(low <= share <= high for share in said["coverage"]["inside"].values())
    assert said["geometry"] == "dft"


@pytest.mark.usefixtures("unpainted")
def test_molecules_without_conformers_are_left_out(
    registry: Registry, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = make_split("standard", len(dataset)).test
    cache = registry.folder / "cache"
    few_geometries.with_geometries(dataset, cache, [int(test[i]) for i in (0, 2, 3)])
    os.symlink(dataset.folder, cache / dataset.folder.name)
    monkeypatch.setenv("QM9FLOW_CACHE", str(cache))
    said = answer("--model", "champion", "--geometry", "smiles", "--limit", "4", "--worst", "1")
    assert (said["own"]["molecules"], said["left_out"]) == (3, 1)
    assert said["coverage"] is None  # it has no network for them
    error = run("evaluate", "--geometry", "approximate", "--limit", "4").exception
    assert isinstance(error, CacheError)
    assert "qm9flow data relaxed" in str(error)


@pytest.mark.usefixtures("unpainted")
def test_a_whole_part_gives_metrics(registry: Registry) -> None:
    said = answer("--model", "1", "--on", "validation", "--worst", "1")
    assert said["own"]["molecules"] == 10_000
    metrics = registry.client.get_run(registry.run_id).data.metrics
    assert metrics["evaluate/validation/gap/mae"] == said["own"]["targets"]["gap"]["mae"]
    assert metrics["evaluate/standard_validation/gap/mae"] == pytest.approx(
        said["standard"]["targets"]["gap"]["mae"]
    )
    there = logged(registry.client, registry.run_id, "evaluation/version_1/validation")
    assert "evaluation.json" in there
    mae = said["own"]["targets"]["homo"]["mae"]  # the bundle claims 0.05
    assert said["differences"] == {"homo": pytest.approx(mae / 0.05 - 1)}


@pytest.mark.usefixtures("unpainted")
def test_json_says_what_was_found_and_where_it_is(registry: Registry) -> None:
    said = answer("--model", "champion", "--output", "there", *QUICK)
    assert said["model"]["version"] == 1
    assert said["model"]["alias"] == "champion"
    assert said["part"] == "test"
    assert list(said["worst"]) == ["gap", "mu"]
    assert len(said["worst"]["gap"]) == 2
    folder = registry.folder / "there"
    assert said["kept"] == {
        "folder": str(folder), "run_ids": [registry.run_id], "not_logged": [],
    }  # fmt: skip
    kept = json.loads((folder / "evaluation.json").read_text())
    assert kept == {key: value for key, value in said.items() if key != "kept"}


@pytest.mark.usefixtures("unpainted")
def test_mlflow_runs_own_run_has_it_too(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parameters that nobody set arrive empty."""
    project = registry.client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", project)
    empty = ("--on", "", "--output", "", "--targets", "", "--worst", "")
    said = answer("--model", "champion", "--limit", "20", *empty)
    assert said["kept"]["run_ids"] == [registry.run_id, project]
    assert "worst.png" in logged(registry.client, project, "evaluation/version_1/test_first_20")


@pytest.mark.usefixtures("unpainted")
def test_a_deleted_run_does_not_lose_the_table(registry: Registry) -> None:
    registry.client.delete_run(registry.run_id)
    result = run("evaluate", *QUICK)
    assert result.exit_code == 0, result.output
    assert "Mean absolute errors beside the literature" in result.stdout
    assert f"not logged: run {registry.run_id} was deleted" in result.stdout


def test_a_bundles_folder_needs_no_store(bundle: Path) -> None:
    said = answer("--model", "some/bundle", *QUICK)
    assert said["model"]["label"] == "bundle bundle"
    assert said["model"]["version"] is None
    assert said["kept"] == {"folder": None, "run_ids": [], "not_logged": []}
    assert not (bundle.parents[1] / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("model.onnx", RegistryError),
        ("weights.safetensors", BundleError),
        ("config.json", RegistryError),
    ],
)
def test_a_damaged_bundle_is_an_error_in_a_line(
    bundle: Path, file: str, kind: type[Exception]
) -> None:
    content = (bundle / file).read_bytes()
    (bundle / file).write_bytes(content[: len(content) // 2])
    error = run("evaluate", "--model", str(bundle), *QUICK).exception
    assert isinstance(error, kind), error
    assert file in str(error)
    assert "\n" not in str(error)


def test_a_bundle_of_other_data_is_refused(bundle: Path, dataset: Dataset) -> None:
    path = bundle / "config.json"
    path.write_text(path.read_text().replace(dataset.digest, "0" * 64))
    error = run("evaluate", "--model", str(bundle), *QUICK).exception
    assert isinstance(error, BundleError)
    assert "was trained on data 000000000000" in str(error)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("--model", "7"), RegistryError, "there is no version '7'"),
        (("--model", "no/folder"), RegistryError, "no/folder is no bundle"),
        (("--targets", "mass"), ConfigError, "unknown target 'mass'"),
    ],
)
def test_what_is_not_there_is_said(
    registry: Registry, arguments: tuple[str, ...], kind: type[Exception], words: str
) -> None:
    error = run("evaluate", *arguments).exception
    assert isinstance(error, kind), error
    assert words in str(error)


def test_a_folder_that_cannot_be_written_is_said(registry: Registry) -> None:
    (registry.folder / "taken").write_text("a file")
    error = run("evaluate", "--output", "taken/inside", *QUICK).exception
    assert isinstance(error, ConfigError)
    assert "cannot write to" in str(error)
