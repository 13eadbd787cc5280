"""A real server with a real registry: swapped and stopped while clients ask."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import served
from live import Clients, Setting, until
from real_server import ROOT, RealServer, real_server

from qm9flow.data.store import Dataset
from qm9flow.registry.aliases import promote, rollback
from qm9flow.registry.versions import MODEL_NAME, resolve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_promotion_and_rollback_under_load_without_a_failed_request(
    setting: Setting, gaps: dict[int, float]
) -> None:
    with Clients(setting, gaps) as clients:
        until(lambda: clients.answers > 20)
        for number in (2, 3):
            promote(resolve(number, setting.uri), force=True, tracking_uri=setting.uri)
            setting.wait_for_version(number)
        rollback(setting.uri)
        setting.wait_for_version(2)
        promote(resolve(1, setting.uri), force=True, tracking_uri=setting.uri)
        setting.wait_for_version(1)
        seen = clients.answers
        until(lambda: clients.answers > seen + 20)
    assert clients.wrong == []
    assert clients.versions == {1, 2, 3}
    family = psutil.Process(setting.server.process.pid).children(recursive=True)
    assert len(family) <= 8


def test_a_damaged_version_is_said_and_the_old_one_answers(
    setting: Setting, gaps: dict[int, float]
) -> None:
    location = Path(resolve(3, setting.uri).location.removeprefix("file://"))
    (stored,) = location.rglob("bundle/model.onnx")
    whole = stored.read_bytes()
    for card in (setting.registry.folder / "cache" / "models").glob("*/card.md"):
        if card.read_text() == "version 3":
            shutil.rmtree(card.parent)
    stored.write_bytes(whole[: len(whole) // 2])
    with Clients(setting, gaps, 2) as clients:
        setting.registry.client.set_registered_model_alias(MODEL_NAME, "champion", "3")
        failure = until(lambda: setting.model()["next"])
    assert failure["version"] == 3
    assert failure["error"]["code"] == "fetch_failed"
    assert clients.wrong == []
    assert clients.versions == {1}
    assert str(setting.registry.folder) not in json.dumps(setting.model())
    _, text = setting.server.ask("/metrics", X_API_Key=setting.key)
    assert re.search(r'qm9flow_swaps_total\{outcome="fetch_failed"\} [1-9]', text)
    assert "qm9flow_model_version 1.0" in text
    stored.write_bytes(whole)
    setting.wait_for_version(3)
    setting.registry.client.set_registered_model_alias(MODEL_NAME, "champion", "1")
    setting.wait_for_version(1)
    assert setting.model()["next"] is None


def test_a_request_of_a_thousand_smiles_keeps_no_other_waiting(setting: Setting) -> None:
    alone = fastest(setting)
    crowd: list[tuple[int, Any]] = []
    chains = [{"smiles": "C" * (1 + number % 9)} for number in range(400)]
    thread = threading.Thread(target=lambda: crowd.append(setting.predict(*chains)))
    thread.start()
    time.sleep(1.0)
    beside = fastest(setting)
    is_crowd_still_there = thread.is_alive()
    thread.join()
    assert is_crowd_still_there
    assert beside < 5 * alone + 2.0
    assert crowd[0][0] == 200
    assert len(crowd[0][1]["results"]) == 400


def fastest(setting: Setting) -> float:
    """Seconds for a request of one SMILES, the best of three."""
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        status, body = setting.predict({"smiles": "CCO"}, targets=["gap"])
        assert status == 200
        assert body["results"][0]["ok"]
        seconds.append(time.monotonic() - began)
    return min(seconds)


def test_the_clients_of_the_readme(setting: Setting) -> None:
    text = (ROOT / "README.md").read_text().split("### Clients")[1].split("\n## ")[0]
    examples = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in examples] == ["sh", "python"]
    variables = {"QM9FLOW_URL": setting.server.url, "QM9FLOW_KEY": setting.key, "PATH": "/usr/bin"}
    shell, python = (code for _, code in examples)
    done = subprocess.run(
        ["bash", "-euc", shell], env=variables, capture_output=True, text=True, check=True
    )
    assert [result["ok"] for result in json.loads(done.stdout)["results"]] == [True, False]
    done = subprocess.run(
        [sys.executable, "-c", python], env=variables, capture_output=True, text=True, check=True
    )
    said = done.stdout.splitlines()
    assert said[0].startswith("qm9flow version 1")
    assert any("eV" in line for line in said)
    assert any("unclosed ring" in line for line in said)


def test_the_command_that_it_prints_works_with_keys(setting: Setting) -> None:
    command = setting.server.greeting.split("\n\n")[1]
    variables = {"KEY": setting.key, "PATH": "/usr/bin"}
    done = subprocess.run(
        ["bash", "-euc", command], env=variables, capture_output=True, text=True, check=True
    )
    assert [result["ok"] for result in json.loads(done.stdout)["results"]] == [True]


def test_keys_and_the_log_of_a_real_server(setting: Setting) -> None:
    status, body = setting.server.ask("/predict", {"molecules": []})
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    status, _ = setting.server.ask("/predict", {"molecules": [{"smiles": "C" * 900_000}]})
    assert status == 401  # after the whole body was read, so that the client hears it
    log = setting.registry.folder / "access.log"
    lines = until(lambda: [json.loads(line) for line in log.read_text().splitlines()])
    assert {"tests", None} == {line["key"] for line in lines}
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert setting.key not in log.read_text() + setting.server.log.read_text()
    assert "Traceback" not in setting.server.log.read_text()


def test_being_stopped_it_ends_what_it_has_begun(dataset: Dataset, tmp_path: Path) -> None:
    settings = tmp_path / "serve.toml"
    settings.write_text("linger_seconds = 3.0\nmax_molecules = 500\n")
    options = ("--model", str(served.bundle(dataset)), "--config", str(settings))
    molecules = [{"smiles": "C" * (1 + number % 9)} for number in range(60)]
    answers: list[tuple[int, int]] = []
    with real_server(tmp_path, *options) as server:

        def ask() -> None:
            status, body = server.ask("/predict", {"molecules": molecules, "targets": ["gap"]})
            answers.append((status, len(body["results"])))

        clients = [threading.Thread(target=ask) for _ in range(6)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        ending = threading.Thread(target=server.end)
        ending.start()
        said = until(lambda: not_ready(server), 10)
        for client in clients:
            client.join()
        ending.join()
        assert server.process.returncode == 0
    assert said == (503, "stopping")
    assert answers == [(200, 60)] * 6
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "killed" not in log


def test_it_ends_with_the_command_that_is_killed(dataset: Dataset, tmp_path: Path) -> None:
    with real_server(tmp_path, "--model", str(served.bundle(dataset))) as server:
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert family
        server.end(signal.SIGKILL)
        until(lambda: not any(lives(child) for child in family))
    assert "Traceback" not in server.log.read_text()


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def not_ready(server: RealServer) -> tuple[int, str] | None:
    status, body = server.ask("/readyz", seconds=5)
    return None if status == 200 else (status, body["error"]["code"])
