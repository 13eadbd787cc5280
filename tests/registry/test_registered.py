"""Registering, listing, finding, fetching."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from registering import SCALE, Registry, errors, facts

from qm9flow import properties
from qm9flow.errors import RegistryError
from qm9flow.registry import client as client_module
from qm9flow.registry.checksum import folder_sha256
from qm9flow.registry.gate import mean_normalised
from qm9flow.registry.versions import (
    MODEL_NAME,
    REQUIRED_TAGS,
    fetch,
    list_versions,
    load_evidence,
    register,
    resolve,
    verify,
)


def stored_bundle(registry: Registry) -> Path:
    (folder,) = registry.folder.glob("mlruns/test/models/*/artifacts/bundle")
    return folder


def test_version_says_what_it_is(registry: Registry) -> None:
    version = registry.add("first")
    assert version.number == 1
    assert version.run_id == registry.run_id
    assert version.tags.items() >= facts("first").items()
    assert json.loads(version.tags["units"])["u0"] == "eV"
    assert version.score == pytest.approx(mean_normalised(errors(), SCALE))
    assert version.mae("test") == dict.fromkeys(properties.TARGETS, 0.5)


def test_model_card_is_the_description(registry: Registry, tmp_path: Path) -> None:
    registry.add("first")
    card = (registry.bundle / "card.md").read_text()
    assert registry.client.get_model_version(MODEL_NAME, "1").description == card
    long = tmp_path / "long"
    long.mkdir()
    for file in registry.bundle.iterdir():
        (long / file.name).write_bytes(file.read_bytes())
    (long / "card.md").write_text("x" * 9000)
    registry.add("second", bundle=long)
    description = registry.client.get_model_version(MODEL_NAME, "2").description
    assert len(description) == 5000
    assert "card.md in the bundle" in description


def test_mlflow_runs_the_registered_model(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `mlflow models serve` would: signature, input example, ONNX flavour."""
    version = registry.add("first")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry.folder}/mlflow.db")
    mlflow.set_tracking_uri(None)
    served = mlflow.pyfunc.load_model(f"models:/{MODEL_NAME}/{version.number}")
    example = served.input_example
    values = served.predict(example)["values"]
    graph = onnxruntime.InferenceSession(registry.bundle / "model.onnx")
    np.testing.assert_allclose(values, graph.run(None, example)[0], rtol=1e-6)
    assert served.metadata.signature.inputs.input_names() == ["numbers", "positions"]
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 10)
    with pytest.raises(MlflowException):
        served.predict({"numbers": example["numbers"]})


def test_explicit_requirements_and_one_file(registry: Registry) -> None:
    registry.add("first")
    folder = stored_bundle(registry).parent
    required = (folder / "requirements.txt").read_text()
    assert "onnxruntime" in required
    assert "torch" not in required
    assert not list(folder.rglob("*.data"))


def test_registered_once_for_a_release(registry: Registry) -> None:
    first = registry.add("first")
    again = registry.add("first", factor=0.5)
    assert again == first
    assert [version.number for version in list_versions()] == [1]
    assert registry.add("second").number == 2


@pytest.mark.parametrize("step", ["log_model_artifacts", "create_model_version"])
def test_killed_registration_goes_on(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, _die)
        with pytest.raises(KeyboardInterrupt):
            registry.add("first")
        assert list_versions() == []
    version = registry.add("first")
    verify(version)
    experiment = registry.client.get_run(registry.run_id).info.experiment_id
    models = registry.client.search_logged_models([experiment])
    assert [str(model.status) for model in models] == ["READY"]


def _die(*args: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_listing_is_paged_and_newest_first(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        registry.add(name)
    original = MlflowClient.search_model_versions

    def one_a_page(self: MlflowClient, *args: Any, **options: Any) -> Any:
        return original(self, *args, **options | {"max_results": 1})

    monkeypatch.setattr(MlflowClient, "search_model_versions", one_a_page)
    assert [version.number for version in list_versions()] == [3, 2, 1]


def test_resolve_by_number_and_alias(registry: Registry) -> None:
    registry.add("a")
    registry.add("b")
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    assert resolve().number == 1
    assert resolve("champion").aliases == ("champion",)
    assert resolve("2").number == resolve(2).number == 2
    with pytest.raises(RegistryError, match="there are 2, 1, champion"):
        resolve("challenger")


def test_no_champion_yet_says_what_to_do(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="make study"):
        resolve()
    registry.add("a")
    with pytest.raises(RegistryError, match="qm9flow promote VERSION"):
        resolve()


def test_no_store_is_said_and_none_is_made(stores_in: Path) -> None:
    with pytest.raises(RegistryError, match="qm9flow study run"):
        list_versions()
    assert list(stores_in.iterdir()) == []


def test_fetch_gives_the_bundle(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a")
    folder = fetch(version, tmp_path / "deep" / "bundle")
    assert folder == tmp_path / "deep" / "bundle"
    assert folder_sha256(folder) == folder_sha256(registry.bundle)
    assert list(folder.parent.iterdir()) == [folder]
    assert fetch(version, folder) == folder  # it is there already


def test_fetch_leaves_other_folders_alone(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not lose")
    with pytest.raises(RegistryError, match="not empty"):
        fetch(version, mine)
    assert (mine / "thesis.txt").read_text() == "do not lose"


def test_fetch_to_the_cache_repairs_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QM9FLOW_CACHE", str(tmp_path / "cache"))
    version = registry.add("a")
    folder = fetch(version)
    assert folder.is_relative_to(tmp_path / "cache")
    assert fetch(version) == folder
    (folder / "card.md").write_text("scribbled over")
    assert folder_sha256(fetch(version)) == folder_sha256(registry.bundle)


@pytest.mark.parametrize("damage", ["change", "remove", "add", "all"])
def test_damaged_bundle_is_refused(registry: Registry, tmp_path: Path, damage: str) -> None:
    version = registry.add("a")
    bundle = stored_bundle(registry)
    if damage == "change":
        content = bytearray((bundle / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (bundle / "model.onnx").write_bytes(content)
    elif damage == "remove":
        (bundle / "card.md").unlink()
    elif damage == "add":
        (bundle / "model.onnx.data").write_bytes(b"")
    else:
        for file in bundle.iterdir():
            file.unlink()
        bundle.rmdir()
    target = tmp_path / "target"
    with pytest.raises(RegistryError):
        fetch(version, target)
    with pytest.raises(RegistryError):
        verify(version)
    assert not target.exists()


def test_unwritable_target_is_an_error(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a")
    (tmp_path / "file").write_text("")
    with pytest.raises(RegistryError, match="cannot be written"):
        fetch(version, tmp_path / "file" / "bundle")


def test_evidence_is_kept_and_verified(registry: Registry) -> None:
    version = registry.add("a")
    found = load_evidence(version)
    np.testing.assert_allclose(found.errors, errors(), rtol=1e-6)
    np.testing.assert_array_equal(found.scale, SCALE)
    assert (found.label, found.split_seed, found.parity) == ("version 1", "0", 2e-5)
    (stored,) = registry.folder.glob("mlruns/test/models/*/artifacts/gate/*.npz")
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(RegistryError, match="damaged"):
        load_evidence(version)


def test_missing_tags_are_named(registry: Registry) -> None:
    for missing in REQUIRED_TAGS:
        tags = {name: value for name, value in facts("a").items() if name != missing}
        with pytest.raises(RegistryError, match=missing):
            register(
                registry.bundle,
                registry.run_id,
                validation_errors=errors(),
                scale=SCALE,
                tags=tags,
            )


def test_unusable_errors_are_refused(registry: Registry) -> None:
    good = errors()
    for bad, scale in (
        (good[:, :9], SCALE),
        (good[:0], SCALE),
        (-good, SCALE),
        (good, SCALE * 0),
        (good, SCALE[:3]),
    ):
        with pytest.raises(RegistryError):
            register(
                registry.bundle,
                registry.run_id,
                validation_errors=bad,
                scale=scale,
                tags=facts("a"),
            )
    assert list_versions() == []


def test_bundle_without_graph_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"model\.onnx"):
        registry.add("a", bundle=tmp_path)


def test_unknown_run_is_an_error(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="reading the run"):
        register(
            registry.bundle, "0" * 32, validation_errors=errors(), scale=SCALE, tags=facts("a")
        )


def test_busy_database_is_tried_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "WAITS_S", (0.0, 0.0))
    original, calls = MlflowClient.create_model_version, []

    def busy_twice(self: MlflowClient, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) <= 2:
            raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)
        return original(self, *args, **options)

    monkeypatch.setattr(MlflowClient, "create_model_version", busy_twice)
    with caplog.at_level(logging.WARNING):
        assert registry.add("a").number == 1
    assert caplog.text.count("busy") == 2


def test_database_that_stays_busy_is_an_error(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WAITS_S", (0.0, 0.0))

    def busy(*args: object, **options: object) -> None:
        raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(MlflowClient, "create_model_version", busy)
    with pytest.raises(RegistryError, match="database is locked"):
        registry.add("a")


def test_the_process_store_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    """MLflow has a global store; a registry elsewhere must neither use nor change it."""
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    (registry.folder / "mlflow.db").rename(tmp_path / "elsewhere.db")
    before = mlflow.get_tracking_uri()
    version = register(
        registry.bundle,
        registry.run_id,
        validation_errors=errors(),
        scale=SCALE,
        tags=facts("a"),
        tracking_uri=elsewhere,
    )
    fetch(version, tmp_path / "bundle", elsewhere)
    load_evidence(version, elsewhere)
    assert resolve(1, elsewhere) == version
    assert mlflow.get_tracking_uri() == before
    assert not (registry.folder / "mlflow.db").exists()


def test_registry_needs_no_torch(registry: Registry) -> None:
    registry.add("a")
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from qm9flow.registry.aliases import promote\n"
        "from qm9flow.registry.versions import fetch, resolve\n"
        "promote(resolve())\n"
        "fetch(resolve(), Path('fetched'))\n"
        "heavy = {'torch', 'optuna', 'ray', 'onnx'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=registry.folder)
    assert done.returncode == 0, done.stderr
