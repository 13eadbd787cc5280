"""What the service says while it loads, when it cannot, when it is busy, and when it fails."""

import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import served
import shipping
from starlette.applications import Starlette
from starlette.testclient import TestClient

from qm9flow.config import SERVE_ENVIRONMENT, ServeConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import (
    ConfigError,
    InferenceError,
    MoleculeError,
    ProviderError,
    RegistryError,
)
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Molecule
from qm9flow.registry.find import FoundModel
from serving.batching import Call, CallOverError
from serving.engine import Engine
from serving.front import Front
from serving.runtime import Runtime
from serving.settings import read_settings

ONE = {"molecules": [{"numbers": [1], "positions": [[0, 0, 0]]}]}


class Loaded(Runtime):
    """A runtime whose engine a test looks into."""

    def __init__(self, engine: Engine | None, settings: ServeConfig | None = None) -> None:
        self.settings = settings or ServeConfig()
        self.is_stopping = False
        self._engine = engine
        self._swapper = None
        self._error = None


@pytest.fixture
def engine(champion: FoundModel) -> Iterator[Engine]:
    config = ServeConfig(conformer_workers=1, device="cpu", max_requests=1, request_seconds=0.5)
    engine = Engine(champion, config)
    yield engine
    engine.close()


def client_of(runtime: Runtime | None) -> TestClient:
    return TestClient(Front(Starlette(), lambda: runtime), raise_server_exceptions=False)


@pytest.mark.parametrize("runtime", [None, Loaded(None)])
def test_before_the_model_is_there(runtime: Runtime | None) -> None:
    client = client_of(runtime)
    assert client.get("/livez").status_code == 200
    assert client.get("/docs.json").status_code == 200
    for response in (
        client.get("/readyz"),
        client.get("/model"),
        client.post("/predict", json=ONE),
    ):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "not_ready"
        assert response.headers["Retry-After"] == "2"


def test_a_model_that_cannot_be_loaded_is_never_ready(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"junk")
    (tmp_path / "config.json").write_text("{}")
    runtime = Runtime(ServeConfig(model=str(tmp_path), conformer_workers=1))
    with pytest.raises(InferenceError):
        runtime.wait(60)
    client = client_of(runtime)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "failed"
    assert str(tmp_path) not in response.text
    assert client.get("/livez").status_code == 200
    runtime.close()


def test_a_required_gpu_that_is_not_there_is_not_ready(champion: FoundModel) -> None:
    from qm9flow.inference.session import cuda_device_count

    if cuda_device_count():
        pytest.skip("there is a GPU")
    runtime = Runtime(ServeConfig(bundle=str(champion.bundle), device="cuda"))
    with pytest.raises(ProviderError, match="CUDA was required"):
        runtime.wait(60)
    assert client_of(runtime).get("/readyz").json()["error"]["code"] == "failed"
    runtime.close()


def test_without_a_bundle_the_champion_is_looked_up(
    champion: FoundModel, dataset: Dataset, stores_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nothing.db")
    runtime = Runtime(ServeConfig(conformer_workers=1))
    with pytest.raises(RegistryError, match="no store"):
        runtime.wait(60)
    runtime.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.store(dataset))
    runtime = Runtime(ServeConfig(conformer_workers=1))
    assert runtime.wait(60).identity()["version"] == 1
    runtime.close()


def test_without_a_registry_the_pretrained_model_answers(
    dataset: Dataset,
    stores_in: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shipping.use(monkeypatch, shipping.ship(dataset, tmp_path_factory.mktemp("shipped")))
    runtime = Runtime(ServeConfig(conformer_workers=1))
    runtime.wait(60)
    client = client_of(runtime)
    for model in (client.get("/model").json(), client.get("/readyz").json()["model"]):
        assert (model["version"], model["alias"]) == (None, "pretrained")
    runtime.close()
    assert "no model is registered; using the pretrained one" in caplog.text
    assert list(stores_in.iterdir()) == []


def test_an_unforeseen_failure_is_500_without_details(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(body: bytes, *more: object) -> bytes:
        raise KeyError("/secret/path")

    monkeypatch.setattr(engine, "respond", broken)
    response = client_of(Loaded(engine)).post("/predict", json=ONE)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.text


def test_a_failing_batch_is_repeated_one_by_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Predictor.predict_each

    def no_carbon(
        self: Predictor, molecules: list[Molecule], targets: tuple[str, ...] | None = None
    ) -> list[Prediction]:
        if any(6 in molecule.numbers for molecule in molecules):
            raise InferenceError("out of memory in /some/where")
        return whole(self, molecules, targets)  # type: ignore[return-value]

    monkeypatch.setattr(Predictor, "predict_each", no_carbon)
    molecules = [{"smiles": "O"}, {"smiles": "C"}, {"smiles": "N"}]
    answer = json.loads(engine.respond(json.dumps({"molecules": molecules}).encode(), Call(60)))
    assert [result["ok"] for result in answer["results"]] == [True, False, True]
    assert answer["results"][1]["error"]["code"] == "internal"
    assert "where" not in answer["results"][1]["error"]["message"]


def test_busy_and_slow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(body: bytes, *more: object) -> bytes:
        release.wait(10)
        return b"{}"

    monkeypatch.setattr(engine, "respond", slow)
    with client_of(Loaded(engine)) as client:
        answers = []
        first = threading.Thread(target=lambda: answers.append(client.post("/predict", json=ONE)))
        first.start()
        time.sleep(0.2)
        assert client.get("/livez").status_code == 200  # the event loop is free meanwhile
        busy = client.post("/predict", json=ONE)
        assert (busy.status_code, busy.json()["error"]["code"]) == (503, "busy")
        assert busy.headers["Retry-After"] == "1"
        first.join()
        release.set()
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (504, "timeout")


def test_slow_smiles_time_out_and_the_rest_is_answered(champion: FoundModel) -> None:
    config = ServeConfig(conformer_workers=1, device="cpu", geometry_seconds=0.5)
    engine = Engine(champion, config)
    heavy = {"smiles": "C" + "C1CC2CCC1CC2" * 7}
    molecules = [heavy, heavy, {"numbers": [1], "positions": [[0, 0, 0]]}]
    answer = json.loads(engine.respond(json.dumps({"molecules": molecules}).encode()))
    codes = [result.get("error", {}).get("code") for result in answer["results"]]
    assert codes == ["timeout", "timeout", None]
    engine.close()


@pytest.mark.parametrize("error", [InferenceError("no memory in /some/where"), OSError("broken")])
def test_geometries_that_cannot_be_made_now_are_no_timeout(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(jobs: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(engine.pool, "build", refuse)
    monkeypatch.setattr(engine.pool, "draw", refuse)
    molecules = [{"smiles": "O"}, {"numbers": [1], "positions": [[0, 0, 0]]}]
    answer = json.loads(engine.respond(json.dumps({"molecules": molecules}).encode(), Call(60)))
    first, second = answer["results"]
    assert (first["error"]["code"], second["ok"]) == ("internal", True)
    assert "where" not in first["error"]["message"]
    (drawing,) = engine.draw([{"smiles": "O"}], Call(60))
    assert isinstance(drawing, MoleculeError)
    assert drawing.code == "internal"


def test_a_client_that_has_gone_is_no_timeout(engine: Engine) -> None:
    call = Call(60)
    call.give_up()
    with pytest.raises(CallOverError):
        engine.respond(json.dumps({"molecules": [{"smiles": "CCO"}]}).encode(), call)


def test_settings_come_from_one_variable() -> None:
    config = ServeConfig(model="3", max_molecules=5)
    text = json.dumps(dataclasses.asdict(config))
    assert read_settings({SERVE_ENVIRONMENT: text}) == config
    assert read_settings({}) == ServeConfig()
    for wrong in ("[]", "{", '{"modle": "3"}', '{"max_molecules": 0}', '{"max_atoms": "many"}'):
        with pytest.raises(ConfigError):
            read_settings({SERVE_ENVIRONMENT: wrong})


def test_answering_needs_no_torch(champion: FoundModel) -> None:
    script = (
        "import json, os, sys, serving.service;"
        "from serving.engine import Engine; from serving.settings import read_settings;"
        "from qm9flow.registry.find import FoundModel; from pathlib import Path;"
        "config = read_settings(); engine = Engine(FoundModel(Path(config.bundle)), config);"
        """engine.respond(b'{"molecules": [{"smiles": "CCO"}]}');"""
        "engine.close();"
        "print(sorted({'torch', 'optuna', 'ray', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    config = ServeConfig(bundle=str(champion.bundle), conformer_workers=1)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            "PATH": "/usr/bin:/bin",
            SERVE_ENVIRONMENT: json.dumps(dataclasses.asdict(config)),
        },
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stderr
