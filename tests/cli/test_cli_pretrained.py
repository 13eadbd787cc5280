"""`predict`, `serve` and `evaluate` on a fresh install, in an empty folder."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import served
import shipping
from click.testing import CliRunner, Result
from registering import open_registry

import qm9flow
from qm9flow.cli.main import cli
from qm9flow.data.store import Dataset
from qm9flow.errors import RegistryError
from qm9flow.registry import evidence
from qm9flow.registry.checksum import folder_sha256

REMARK = (
    "no model is registered; using the pretrained one that comes with qm9flow "
    f"{qm9flow.__version__}\n"
)


@pytest.fixture
def shipped(
    stores_in: Path,
    dataset: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A model to come with qm9flow; the current folder is empty."""
    return shipping.use(monkeypatch, shipping.ship(dataset, tmp_path_factory.mktemp("shipped")))


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_predict_works_at_once_and_leaves_nothing(shipped: Path, stores_in: Path) -> None:
    result = call("predict", "--smiles", "CCO", "--json")
    assert answer(result)["model"] == {
        "name": "qm9flow",
        "version": None,
        "alias": "pretrained",
        "provider": "cpu",
    }
    assert result.stderr == REMARK
    table = call("predict", "--smiles", "CCO", "--targets", "gap")
    assert table.stdout.startswith("qm9flow (pretrained) on cpu\n")
    assert table.stderr == REMARK
    named = call("predict", "--smiles", "CCO", "--json", "--model", "pretrained")
    assert answer(named) == answer(result)
    assert named.stderr == ""
    assert list(stores_in.iterdir()) == []


def test_evaluate_works_at_once_and_leaves_nothing(shipped: Path, stores_in: Path) -> None:
    result = call("evaluate", "--limit", "20", "--targets", "gap", "--json")
    said = answer(result)
    assert (said["model"]["version"], said["model"]["alias"]) == (None, "pretrained")
    assert said["kept"] == {"folder": None, "run_ids": [], "not_logged": []}
    assert result.stderr == REMARK
    assert list(stores_in.iterdir()) == []


def test_an_empty_registry_says_what_is_used(
    shipped: Path, stores_in: Path, dataset: Dataset
) -> None:
    registry = open_registry(stores_in, served.bundle(dataset))
    assert "predict and serve use the pretrained one" in call("models").output
    assert call("predict", "--smiles", "C").stderr == REMARK
    registry.add("mine")
    failed = call("predict", "--smiles", "C")
    assert isinstance(failed.exception, RegistryError)
    assert "no version is champion yet" in str(failed.exception)


@pytest.mark.parametrize(
    "command",
    ["predict --smiles C", "evaluate", "serve --port 0", "export pretrained --output there"],
)
def test_a_damaged_one_is_an_error_in_a_line(shipped: Path, command: str) -> None:
    (shipped / "bundle" / "model.onnx").write_bytes(b"")
    failed = call(*command.split())
    assert isinstance(failed.exception, RegistryError)
    assert re.fullmatch(r"the pretrained model in .* is damaged .*", str(failed.exception))


def test_export_takes_the_gates_evidence_along(
    shipped: Path, stores_in: Path, dataset: Dataset
) -> None:
    registry = open_registry(stores_in, served.bundle(dataset))
    registry.add("mine")
    words = ("export", "1", "--output", "new/bundle", "--evidence", "new/validation.npz")
    assert "Wrote its validation errors to new/validation.npz" in call(*words).output
    assert folder_sha256(stores_in / "new/bundle") == folder_sha256(registry.bundle)
    errors, _ = evidence.load(stores_in / "new/validation.npz")
    assert len(errors) == 400
    assert answer(call(*words, "--json"))["evidence"] == "new/validation.npz"


def test_export_writes_the_one_that_comes_along(shipped: Path, stores_in: Path) -> None:
    words = ("export", "pretrained", "--output", "new/bundle")
    beside = ("--evidence", "new/validation.npz", "--curves", "new/curves.csv")
    assert "Wrote the pretrained model to new/bundle" in call(*words, *beside).output
    for name in ("validation.npz", "curves.csv"):
        assert (stores_in / "new" / name).read_bytes() == (shipped / name).read_bytes()
    assert folder_sha256(stores_in / "new/bundle") == folder_sha256(shipped / "bundle")
    assert answer(call(*words, "--json"))["version"] is None  # it is there already
    (stores_in / "new/bundle/card.md").write_text("mine")
    failed = call(*words)
    assert isinstance(failed.exception, RegistryError)
    assert str(failed.exception) == "new/bundle is not empty; name a new folder"
    assert (stores_in / "new/bundle/card.md").read_text() == "mine"


@pytest.mark.slow
def test_serve_works_at_once_and_leaves_nothing(shipped: Path, stores_in: Path) -> None:
    code = shipping.CODE.format(folder=str(shipped)) + (
        "from qm9flow.cli.main import main\n"
        "sys.argv = ['qm9flow', 'serve', '--port', '0']\n"
        "main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    ) as process:
        try:
            banner = ""
            for line in process.stdout or ():
                banner += line
                if "Ctrl-C" in line:
                    break
            found = re.search(r"Serving qm9flow pretrained at (http://\S+)", banner)
            assert found, process.communicate()
            model = httpx.get(f"{found[1]}/model").json()
            one = {"molecules": [{"smiles": "CCO"}], "targets": ["gap"]}
            over_http = httpx.post(f"{found[1]}/predict", json=one, timeout=60).json()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=60)
    assert (model["version"], model["alias"]) == (None, "pretrained")
    assert over_http["model"]["alias"] == "pretrained"
    assert over_http["results"][0]["ok"]
    assert log.startswith(REMARK)
    assert list(stores_in.iterdir()) == []
