"""`qm9flow predict` and `qm9flow serve` as a user calls them."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import served
from click.testing import CliRunner, Result

from qm9flow import errors
from qm9flow.bulk.readers.lines import MAX_CHARACTERS
from qm9flow.cli import extras
from qm9flow.cli.main import cli
from qm9flow.data.store import Dataset
from qm9flow.elements import SYMBOL_OF
from qm9flow.errors import (
    ConfigError,
    DependencyError,
    InputFileError,
    Qm9FlowError,
    RegistryError,
)
from qm9flow.inference.predictor import Predictor
from qm9flow.properties import TARGETS


@pytest.fixture
def registry(dataset: Dataset, stores_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and a store with a champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.store(dataset))
    return stores_in


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={"COLUMNS": "100"})


def answer(*arguments: str) -> dict[str, Any]:
    """The JSON of a call that must succeed."""
    result = call("predict", "--json", *arguments)
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def error(*arguments: str) -> Qm9FlowError:
    """The error of a call that must fail before it prints anything."""
    result = call(*arguments)
    assert isinstance(result.exception, Qm9FlowError), result.output
    assert result.stdout == ""
    return result.exception


def test_json_is_the_services_answer(registry: Path, dataset: Dataset) -> None:
    (registry / "water.xyz").write_text(served.WATER)
    got = answer("--smiles", "CCO", "--smiles", "C1CC", "--xyz", "water.xyz")
    assert got["model"] == {
        "name": "qm9flow",
        "version": 1,
        "alias": "champion",
        "provider": "cpu",
    }
    assert list(got["units"]) == list(TARGETS)
    ethanol, broken, water = got["results"]
    assert (ethanol["ok"], broken["ok"], water["ok"]) == (True, False, True)
    assert broken["error"]["code"] == "invalid_smiles"
    assert "SMILES" in ethanol["warnings"][0]
    assert water["warnings"] == []


def test_table_for_people(registry: Path) -> None:
    (registry / "water.xyz").write_text(served.WATER)
    result = call(
        "predict", "--smiles", "C#N", "--smiles", "C1CC", "water.xyz", "--targets", "gap, a,a"
    )
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "qm9flow version 1 (champion) on cpu"
    assert lines[2].split() == ["target", "unit", "1", "C#N", "3", "water.xyz"]
    gap, a = lines[3].split(), lines[4].split()
    assert gap[:2] == ["gap", "eV"]
    assert a[:3] == ["a", "GHz", "-"]
    expected = answer("--smiles", "C#N", "water.xyz", "--targets", "gap")["results"]
    assert [float(cell) for cell in gap[2:]] == pytest.approx(
        [result["values"]["gap"] for result in expected], abs=1e-3
    )
    assert len({len(line) for line in lines[2:5]}) == 1
    assert lines[6].startswith("Warning: 1: the geometry was made from a SMILES")
    assert lines[7] == "Error: 2 C1CC: not a SMILES: unclosed ring (invalid_smiles)"


def test_a_smiles_that_leaves_isomers_open_says_so(registry: Path) -> None:
    either, one = answer("--smiles", "CC=CC", "--smiles", "C/C=C/C", "--targets", "gap")["results"]
    (said,) = set(either["warnings"]) - set(one["warnings"])
    assert said.startswith("the SMILES leaves open which of 2 stereoisomers or more is meant")


def test_wide_tables_are_folded(registry: Path) -> None:
    smiles = [
        part for text in ("C", "N", "O", "CO", "CN", "CC", "C=C") for part in ("--smiles", text)
    ]
    result = call("predict", *smiles, "--targets", "mu,gap")
    table, warnings = result.stdout.split("\nWarning", 1)
    assert max(len(line) for line in table.splitlines()) <= 100
    assert warnings.startswith(": 1, 2, 3, 4, 5, 6, 7: ")
    assert result.stdout.count("target") == 3


def test_exit_status_is_one_if_all_were_refused(registry: Path) -> None:
    result = call("predict", "--smiles", "C1CC", "--smiles", "CCl")
    assert result.exit_code == 1
    assert result.stdout.count("Error: ") == 2
    result = call("predict", "--smiles", "C1CC", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["results"][0]["ok"] is False


def test_files_of_all_kinds(registry: Path, dataset: Dataset) -> None:
    from rdkit import Chem

    from qm9flow.molecules.smiles import from_smiles

    frames = []
    for index in (10, 20_000):
        molecule = dataset.molecule(index)
        rows = zip(molecule.numbers, molecule.positions.tolist(), strict=True)
        lines = [f"{SYMBOL_OF[int(z)]} {x!r} {y!r} {zz!r}" for z, (x, y, zz) in rows]
        frames.append("\n".join([str(len(molecule)), f"QM9 {index}", *lines]) + "\n")
    (registry / "two.xyz").write_text("".join(frames))
    (registry / "list.smi").write_text(
        "# alcohols\nSMILES Name\nCO methanol\n\nCCO\tethanol\nC1CC\n"
    )
    ethanol = from_smiles("CCO").lowest
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for atom, position in enumerate(ethanol.positions.tolist()):
        conformer.SetAtomPosition(atom, position)
    mol.AddConformer(conformer)
    Chem.MolToMolFile(mol, str(registry / "ethanol.mol"))

    got = answer("two.xyz", "list.smi", "ethanol.mol")["results"]
    assert [result["ok"] for result in got] == [True, True, True, True, False, True]
    predictor = Predictor(served.bundle(dataset), provider="cpu")
    for result, index in zip(got[:2], (10, 20_000), strict=True):
        expected = predictor.predict([dataset.molecule(index)])[0].values
        for name in TARGETS:
            assert result["values"][name] == pytest.approx(expected[name], rel=1e-6, abs=1e-4)
    assert "approximate" in got[5]["warnings"][0]
    assert got[5]["values"]["gap"] == pytest.approx(got[3]["values"]["gap"], abs=1e-3)
    (exact,) = answer("ethanol.mol", "--geometry", "dft")["results"]
    assert not any("geometry" in warning for warning in exact["warnings"])
    names = call("predict", "two.xyz", "list.smi", "--targets", "mu").stdout
    assert all(word in names for word in ("two.xyz:1", "two.xyz:2", "methanol", "ethanol"))


def test_files_as_other_programs_write_them(registry: Path) -> None:
    water = "3\nwater\nO 0 0 0.1173\nH 0 0.7572 -0.4692\nH 0 -0.7572 -0.4692\n"
    for name, text in {
        "mark.smi": "\ufeffCCO ethanol\r\n",
        "head.ism": "# by RDKit\nSMILES Name\nCCO ethanol\n",
        "mark.xyz": "\ufeff" + water,
    }.items():
        (registry / name).write_text(text, encoding="utf-8")
        assert [result["ok"] for result in answer(name)["results"]] == [True], name


def test_a_file_means_the_same_with_and_without_output(registry: Path) -> None:
    """Bad frames, gzipped files under any name, records of an SDF that are none."""
    water = served.WATER
    short = "4\nshort\n" + water.split("\n", 2)[2]
    (registry / "bad.xyz").write_text(water + short + water)
    (registry / "zipped.xyz").write_bytes(gzip.compress((water * 2).encode()))
    (registry / "none.sdf").write_text("nonsense\n$$$$\n$$$$\n")
    long = "C" * (MAX_CHARACTERS + 1)
    (registry / "long.smi").write_text(f"C\n{long}\nO\n")
    for name, codes in {
        "bad.xyz": ["", "unreadable", ""],
        "zipped.xyz": ["", ""],
        "none.sdf": ["unreadable", "empty"],
        "long.smi": ["", "bad_row", ""],
    }.items():
        shown = call("predict", "--json", "--smiles", "N", "--targets", "gap", name)
        _, *listed = json.loads(shown.stdout)["results"]
        call("predict", name, "--targets", "gap", "--output", f"{name}.jsonl")
        lines = (registry / f"{name}.jsonl").read_text().splitlines()
        for result, row in zip(listed, map(json.loads, lines), strict=True):
            assert result.get("error", {}) == (
                {"code": row["error_code"], "message": row["error"]} if row["error"] else {}
            )
            assert result.get("values", {"gap": None})["gap"] == row["gap"]
        assert [result.get("error", {}).get("code", "") for result in listed] == codes
    assert len(answer("--xyz", "zipped.xyz", "--geometry", "dft", "long.smi")["results"]) == 5


def test_a_file_without_molecules_is_told(registry: Path) -> None:
    for name in ("none.smi", "none.xyz"):
        (registry / name).write_text("\n")
        result = call("predict", name)
        assert result.exit_code == 1
        assert f"Error: 1 {name}: the file holds no molecule (empty)" in result.stdout


def test_model_by_number_and_by_folder(registry: Path, dataset: Dataset) -> None:
    by_alias = answer("--smiles", "CCO")
    by_number = answer("--smiles", "CCO", "--model", "1")
    by_folder = answer("--smiles", "CCO", "--model", str(served.bundle(dataset)))
    assert by_number["model"]["alias"] == "champion"
    assert by_folder["model"]["version"] is None
    assert by_alias["results"] == by_number["results"] == by_folder["results"]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ([], ConfigError, ["--smiles"]),
        (["--smiles", "C", "--targets", "gip"], ConfigError, ["gip", "homo"]),
        (["--smiles", "C", "--targets", ","], ConfigError, ["homo"]),
        (["--smiles", "C", "--model", "7"], RegistryError, ["'7'", "champion"]),
        (["--smiles", "C", "--model", "./nowhere"], RegistryError, ["no bundle"]),
        (["missing.xyz"], InputFileError, ["missing.xyz", "No such file"]),
        (["table.xls"], ConfigError, ["table.xls", ".smi", "--xyz"]),
        (["--smiles", "C", "--tracking-uri", "sqlite:///none.db"], RegistryError, ["no store"]),
    ],
)
def test_what_cannot_be_done_is_said(
    registry: Path, arguments: list[str], kind: type[Qm9FlowError], words: list[str]
) -> None:
    failure = error("predict", *arguments)
    assert isinstance(failure, kind)
    assert all(word in str(failure) for word in words), str(failure)


def test_a_changed_bundle_is_refused(registry: Path, dataset: Dataset) -> None:
    copy = registry / "copy"
    shutil.copytree(served.bundle(dataset), copy)
    with (copy / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert "damaged" in str(error("predict", "--smiles", "C", "--model", str(copy)))


@pytest.mark.parametrize("command", ["predict", "serve"])
def test_help_has_an_example_and_is_quick(command: str) -> None:
    script = (
        "import sys; from qm9flow.cli.main import cli;"
        f"cli(['{command}', '--help'], standalone_mode=False);"
        "print(sorted({'torch', 'mlflow', 'bentoml', 'rdkit', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "Example:" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_serve_refuses_what_cannot_work(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exclude" in str(error("serve", "--require-gpu", "--device", "cpu"))
    assert "IP address" in str(error("serve", "--host", "example.org"))
    assert "--port" in str(error("serve", "--host", "192.0.2.1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}" in str(error("serve", "--port", port))
    assert "'7'" in str(error("serve", "--port", "0", "--model", "7"))
    assert "--chunk" in str(error("predict", "--smiles", "C", "--chunk", "5"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nothing.db")
    assert "make study" in str(error("serve", "--port", "0"))
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    missing = error("serve")
    assert isinstance(missing, DependencyError)
    assert "qm9flow[serve]" in str(missing)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real `qm9flow serve` in a process group of its own, and its address."""
    command = [sys.executable, "-m", "qm9flow", "serve", "--port", "0", *arguments]
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), **os.environ}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            banner = ""
            for line in process.stdout or ():
                banner += line
                if "Ctrl-C" in line:
                    break
            found = re.search(r"curl (http://\S+)/predict", banner)
            assert found, process.communicate()
            yield process, found[1]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.mark.slow
def test_a_real_server_answers_what_predict_says(registry: Path) -> None:
    (registry / "water.xyz").write_text(served.WATER)
    molecules = [{"xyz": served.WATER}, {"smiles": "CCO"}, {"smiles": "C1CC"}]
    with serving() as (process, url):
        assert httpx.get(f"{url}/readyz").json()["provider"]["active"] == "cpu"
        response = httpx.post(f"{url}/predict", json={"molecules": molecules}, timeout=60)
        assert response.status_code == 200
        over_http = response.json()
        pages = {path: httpx.get(url + path) for path in ("/", "/metrics", "/docs.json", "/nope")}
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=60)
    assert [result["ok"] for result in over_http["results"]] == [True, True, False]
    assert pages["/"].status_code == pages["/docs.json"].status_code == 200
    assert 'route="/predict",status="200"' in pages["/metrics"].text
    assert pages["/nope"].json()["error"]["code"] == "not_found"
    assert process.returncode == 0, log
    assert "The server has ended." in log
    assert "Traceback" not in log
    psutil.wait_procs(family, timeout=20)
    assert not [child for child in family if child.is_running()]

    named = ("--xyz", "water.xyz", "--smiles", "CCO", "--smiles", "C1CC")
    shell = answer(*named)
    assert shell["model"] == over_http["model"]
    assert shell["units"] == over_http["units"]
    order = (1, 2, 0)  # predict takes --smiles first
    for place, result in zip(order, shell["results"], strict=True):
        same = over_http["results"][place]
        if result["ok"]:
            np.testing.assert_allclose(
                list(result["values"].values()), list(same["values"].values()), rtol=1e-9
            )
            assert result["warnings"] == same["warnings"]
        else:
            assert result == same


@pytest.mark.slow
def test_a_real_server_without_the_required_gpu_does_not_start(registry: Path) -> None:
    from qm9flow.inference.session import cuda_device_count

    if cuda_device_count():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "qm9flow", "serve", "--port", "0", "--require-gpu"]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "CUDA was required" in done.stderr
    assert "Error: the model cannot be served" in done.stderr
    assert time.monotonic() - started < 100
    assert errors.ProviderError.__name__ not in done.stderr


@pytest.mark.slow
def test_a_worker_that_is_killed_comes_back(registry: Path) -> None:
    one = {"molecules": [{"smiles": "CCO"}], "targets": ["gap"]}
    with serving() as (process, url):
        before = httpx.post(f"{url}/predict", json=one, timeout=60).json()
        family = psutil.Process(process.pid).children(recursive=True)
        worker = next(p for p in family if "_bentoml_impl.worker.service" in " ".join(p.cmdline()))
        worker.kill()
        until = time.monotonic() + 90
        after: dict[str, Any] = {}
        while time.monotonic() < until and after != before:
            try:
                after = httpx.post(f"{url}/predict", json=one, timeout=5).json()
            except httpx.HTTPError:
                time.sleep(0.2)
    assert after == before
