"""A bento: built for real, holding no more than a service needs, serving where no torch is."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import served
import yaml
from servers import free_port

from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.xyz import from_xyz

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "serving"
ABSENT = ("torch", "torch_geometric", "optuna", "ray", "onnx", "matplotlib", "pyarrow", "qm9pack")
HERMETIC = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

# The bento's own code is meant, not what is installed here for development.
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
sys.path[:] = [place for place in sys.path if place != {root!r}]
sys.meta_path.insert(0, Absent())
"""


def pinned(name: str) -> dict[str, str]:
    """Version by package of a file of requirements."""
    lines = (ROOT / "serving" / name).read_text().splitlines()
    found = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(middle == "==" and version for _, middle, version in found)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, _, version in found}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-gpu.txt"])
def test_requirements_are_those_of_the_lock_without_training(name: str) -> None:
    versions = pinned(name)
    lock = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        package, _, version = line.partition("==")
        lock[re.sub(r"[-_.]+", "-", package).lower()] = version
    assert not set(versions) & {package.replace("_", "-") for package in ABSENT}
    assert {package: version for package, version in versions.items() if package in lock} == {
        package: lock[package] for package in versions if package in lock
    }
    own = {"requirements.txt": {"onnxruntime"}, "requirements-gpu.txt": set()}[name]
    unknown = {package for package in set(versions) - set(lock) if "nvidia" not in package}
    assert unknown == own
    runtimes = {package for package in versions if package.startswith("onnxruntime")}
    assert runtimes == ({"onnxruntime"} if own else {"onnxruntime-gpu"})
    for package in ("bentoml", "numpy", "rdkit", "mlflow-skinny", "sqlalchemy", "click", "tqdm"):
        assert package in versions


def test_both_bentos_hold_the_same() -> None:
    from qm9flow.cli.server import IMPATIENCE

    one = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bentoml"]["build"]
    other = yaml.safe_load((DOCS / "bento-gpu.yaml").read_text())
    for key in ("service", "include", "exclude", "envs", "docker"):
        assert one[key] == other[key]
    assert {item["name"]: item["value"] for item in one["envs"]} == IMPATIENCE


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_recipes_copy_what_exists_and_start_what_there_is(kind: str) -> None:
    from qm9flow.cli.serve import command

    recipe = (DOCS / f"Dockerfile.{kind}").read_text()
    for source in re.findall(r"^COPY (\S+) ", recipe, re.MULTILINE):
        assert (ROOT / source).exists()
    entry = json.loads(re.findall(r"^ENTRYPOINT (.*)$", recipe, re.MULTILINE)[0])
    assert entry[:4] == ["python", "-m", "qm9flow", "serve"]
    known = {name for option in command.params for name in option.opts}
    assert {word for word in entry if word.startswith("--")} <= known
    assert ("--require-gpu" in entry) == (kind == "gpu")
    assert "QM9FLOW_API_KEYS_FILE" in recipe  # without keys, no other machine is answered


@pytest.fixture(scope="module")
def bento(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bento with a model of its own, built from a copy of the code."""
    folder = tmp_path_factory.mktemp("bento")
    source, home = folder / "checkout", folder / "home"
    ignored = shutil.ignore_patterns("__pycache__", "earlier", "rough_earlier")
    for name in ("qm9flow", "serving"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", source)
    shutil.copytree(served.bundle(dataset), source / "serving" / "bundle", dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=source,
        env={**os.environ, "BENTOML_HOME": str(home), "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = [path.parent for path in home.glob("bentos/*/*/bento.yaml")]
    return built


@pytest.mark.slow
def test_a_bento_holds_what_a_service_needs(bento: Path) -> None:
    files = {path.relative_to(bento / "src").as_posix() for path in (bento / "src").rglob("*")}
    assert {"serving/service.py", "serving/bundle/model.onnx", "qm9flow/registry/watch.py"} <= files
    rooms = {
        name.split("/")[1] for name in files if name.startswith("qm9flow/") and "." not in name
    }
    assert rooms == {"config", "inference", "molecules", "registry", "pretrained"}
    requirements = (bento / "env" / "python" / "requirements.txt").read_text()
    assert not re.search(r"^(torch|optuna|ray|mlflow)\b(?!-)", requirements, re.MULTILINE)
    assert "onnxruntime==" in requirements
    size = sum(path.stat().st_size for path in bento.rglob("*") if path.is_file())
    assert size < 20e6


@pytest.fixture
def url(bento: Path, tmp_path: Path) -> Iterator[str]:
    """That bento, served by BentoML alone in a process where torch cannot be imported."""
    (tmp_path / "sitecustomize.py").write_text(HERMETIC.format(absent=ABSENT, root=str(ROOT)))
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", str(bento)]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("QM9", "MLFLOW"))
    }
    environment |= {
        "PYTHONPATH": str(tmp_path),
        "BENTOML_HOME": str(tmp_path / "home"),
        "QM9FLOW_SERVING": '{"conformer_workers": 1, "linger_seconds": 0}',
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_ready(base, process, tmp_path / "log")
        yield base
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(base: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


@pytest.mark.slow
def test_a_bento_serves_its_own_model_without_torch(
    url: str, dataset: Dataset, bento: Path
) -> None:
    model = ask(f"{url}/model")
    assert (model["version"], model["watch"]) == (None, None)
    molecules = [{"xyz": served.WATER}, {"smiles": "CCO"}]
    results = ask(f"{url}/predict", {"molecules": molecules, "targets": ["gap"]})["results"]
    predictor = Predictor(served.bundle(dataset), provider="cpu", threads=1)
    expected = predictor.predict([from_xyz(served.WATER)], ["gap"])[0]
    assert results[0]["values"] == expected.values
    assert results[1]["ok"]
    port = int(url.rpartition(":")[2])
    used = [
        opened.path
        for process in psutil.process_iter()
        if is_listening(process, port)
        for opened in process.memory_maps()
    ]
    assert used
    assert not [path for path in used if "/torch/" in path]


def is_listening(process: psutil.Process, port: int) -> bool:
    try:
        return any(item.laddr.port == port for item in process.net_connections() if item.laddr)
    except (psutil.Error, OSError):
        return False
