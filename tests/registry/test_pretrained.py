"""The model that comes with qm9flow: when it is taken, and that it is verified."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import registering
import shipping
from registering import Registry

import qm9flow
from qm9flow.data.store import Dataset
from qm9flow.errors import NothingRegisteredError, RegistryError
from qm9flow.registry import evidence, pretrained
from qm9flow.registry.find import find_model
from qm9flow.registry.versions import MODEL_NAME, fetch_evidence, load_evidence


@pytest.fixture
def shipped(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy of qm9flow's folder `pretrained`, to be damaged."""
    return shipping.use(monkeypatch, shipping.ship(dataset, tmp_path_factory.mktemp("shipped")))


def test_it_stands_in_where_there_is_no_store(shipped: Path, stores_in: Path) -> None:
    found = find_model("champion")
    assert (found.version, found.alias, found.bundle) == (None, "pretrained", shipped / "bundle")
    assert found.remark == (
        "no model is registered; using the pretrained one that comes with qm9flow "
        f"{qm9flow.__version__}"
    )
    assert list(stores_in.iterdir()) == []


def test_it_stands_in_for_the_champion_of_an_empty_registry_only(
    shipped: Path, registry: Registry
) -> None:
    assert find_model("champion").stands_in
    for name in ("challenger", "1"):
        with pytest.raises(NothingRegisteredError, match="make study"):
            find_model(name)
    registry.add("a")
    with pytest.raises(RegistryError, match="qm9flow promote VERSION"):
        find_model("champion")
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    champion = find_model("champion")
    assert (champion.version, champion.remark) == (1, None)


@pytest.mark.parametrize("name", ["champion", "pretrained", "1"])
def test_a_folder_of_the_same_name_does_not_hide_a_model(
    shipped: Path, registry: Registry, name: str
) -> None:
    """`qm9flow export champion --output champion/` may have been called here."""
    registry.add("a")
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    shutil.copytree(shipped / "bundle", name)
    assert find_model(name).bundle != Path(name).absolute()
    assert find_model(f"./{name}").bundle == Path(name).absolute()
    shutil.copytree(shipped / "bundle", "mine")
    assert find_model("mine").bundle == Path("mine").absolute()


def test_by_its_name_it_is_there_at_any_time(shipped: Path, registry: Registry) -> None:
    registry.add("a")
    registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    found = find_model("pretrained")
    assert (found.version, found.alias, found.label) == (None, "pretrained", "pretrained")
    assert found.remark is None


def test_a_store_that_was_named_must_exist(
    shipped: Path, stores_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt address must not serve another model than the one meant."""
    with pytest.raises(RegistryError, match="there is no store"):
        find_model("champion", "sqlite:///misspelt.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///misspelt.db")
    with pytest.raises(RegistryError, match="there is no store"):
        find_model("champion")
    assert list(stores_in.iterdir()) == []


def test_a_misspelt_name_is_told_the_one_that_is_there(shipped: Path, stores_in: Path) -> None:
    with pytest.raises(
        RegistryError, match=r"no model 'pretraind'.*`pretrained`, the model that comes"
    ):
        find_model("pretraind")


@pytest.mark.parametrize("file", ["model.onnx", "weights.safetensors", "config.json"])
@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_a_damaged_one_is_refused_in_a_line(
    shipped: Path, stores_in: Path, file: str, how: str
) -> None:
    path = shipped / "bundle" / file
    content = path.read_bytes()
    path.unlink()
    if how != "gone":
        path.write_bytes(b"x" + content[1:] if how == "changed" else content[:-9])
    for name in ("champion", "pretrained"):
        with pytest.raises(RegistryError, match=r"is damaged .*install qm9flow again") as failure:
            find_model(name)
        assert "\n" not in str(failure.value)


def test_a_copy_without_one_says_so(
    stores_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipping.use(monkeypatch, tmp_path / "nothing")
    with pytest.raises(RegistryError, match="comes without a pretrained model"):
        find_model("pretrained")
    with pytest.raises(RegistryError, match="there is no store"):
        find_model("champion")


def test_finding_it_needs_neither_torch_nor_mlflow(shipped: Path, stores_in: Path) -> None:
    code = shipping.CODE.format(folder=str(shipped)) + (
        "from qm9flow.inference.predictor import Predictor\n"
        "from qm9flow.molecules.smiles import from_smiles\n"
        "from qm9flow.registry.find import find_model\n"
        "found = find_model('champion')\n"
        "assert found.stands_in\n"
        "Predictor(found.bundle, provider='cpu').predict([from_smiles('CCO')])\n"
        "heavy = {'torch', 'optuna', 'onnx', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(stores_in.iterdir()) == []


def test_what_the_gate_compares_is_verified(shipped: Path) -> None:
    errors, scale = pretrained.validation_errors()
    np.testing.assert_allclose(errors, registering.errors(), rtol=1e-6)
    np.testing.assert_array_equal(scale, registering.SCALE)
    path = shipped / evidence.FILE
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:-100], bytes(flipped), b""):
        path.write_bytes(damaged)
        with pytest.raises(RegistryError, match="install qm9flow again"):
            pretrained.validation_errors()


def test_a_versions_evidence_can_be_taken_along(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a")
    fetch_evidence(version, tmp_path / "new" / "errors.npz")
    errors, scale = evidence.load(tmp_path / "new" / "errors.npz")
    known = load_evidence(version)
    np.testing.assert_array_equal(errors, known.errors)
    np.testing.assert_array_equal(scale, known.scale)
    with pytest.raises(RegistryError, match="cannot be written"):
        fetch_evidence(version, tmp_path)
