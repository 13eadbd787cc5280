"""More requests than a service can answer, for half a minute; the benchmark does it for ten."""

import json
import subprocess
import sys

import pytest
from real_server import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_twice_saturation_costs_neither_answers_nor_memory() -> None:
    script = ROOT / "benchmarks" / "serving_load.py"
    done = subprocess.run(
        [sys.executable, str(script), "--minutes", "0.5", "--search", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["faults"] == []
    assert set(said["statuses"]) <= {"200", "429", "503", "504"}
    assert said["checked"] == said["statuses"]["200"] > 0
