"""On an installation without an extra, a command says in one line what it misses."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from qm9flow.cli.extras import EXTRAS, explained

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
NOTHING = ",".join(module for modules in EXTRAS.values() for module in modules)
HOOK = """
import contextlib, io, json, sys

absent = sys.argv[1].split(",")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from qm9flow.cli.main import main

said = []
for words in json.loads(sys.argv[2]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["qm9flow", *words.split()]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    said.append((status, out.getvalue(), err.getvalue()))
print(json.dumps(said))
"""
NEED_AN_EXTRA = (
    "train --epochs 1",
    "train --from-run 0123456789abcdef0123456789abcdef",
    "study run --n-trials 1",
    "study list",
    "study show any",
    "study resume any",
    "study delete any --yes",
    "evaluate --limit 10",
    "report",
    "data prepare --force --cache cache",
)
NEED_NONE = ("predict --smiles C", "models --help", "study run --help")


class Said(NamedTuple):
    """What became of a command."""

    status: int
    stdout: str
    stderr: str


def run(absent: str, commands: Sequence[str], folder: Path) -> list[Said]:
    """Commands on an installation without some modules, one after another in a process."""
    done = subprocess.run(
        [sys.executable, "-c", HOOK, absent, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [Said(*item) for item in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands without extras are called."""
    return tmp_path_factory.mktemp("bare")


@pytest.fixture(scope="module")
def without_extras(folder: Path) -> dict[str, Said]:
    """What becomes of each command where no extra is installed."""
    words = (*NEED_AN_EXTRA, *NEED_NONE)
    return dict(zip(words, run(NOTHING, words, folder), strict=True))


@pytest.mark.parametrize("words", NEED_AN_EXTRA)
def test_without_the_extra_a_command_says_what_to_install(
    words: str, without_extras: dict[str, Said], folder: Path
) -> None:
    said = without_extras[words]
    assert said.status == 1
    assert said.stdout == ""
    assert "pip install 'qm9flow[train]'" in said.stderr
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert not (folder / "mlflow.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "absent"),
    [
        ("train --epochs 1", "tensorboard"),
        ("train --epochs 1", "onnxscript"),  # first needed when the training is over
        ("study run --n-trials 1", "tensorboard"),
        ("serve --port 0", "bentoml"),
    ],
)
def test_one_module_is_missed_before_the_work_begins(
    words: str, absent: str, tmp_path: Path
) -> None:
    (said,) = run(absent, [words], tmp_path)
    assert said.status == 1
    extra = "serve" if absent == "bentoml" else "train"
    assert said.stderr == (
        f"Error: this needs {absent}, which is not installed: pip install 'qm9flow[{extra}]'\n"
    )
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("words", NEED_NONE)
def test_commands_that_need_no_extra_work_without_any(
    words: str, without_extras: dict[str, Said]
) -> None:
    assert without_extras[words].status == 0, without_extras[words].stderr
    assert without_extras[words].stdout


def test_other_modules_are_not_explained_away() -> None:
    assert explained(ModuleNotFoundError("no", name="nonesuch")) is None
    assert explained(ModuleNotFoundError("no", name="torch.nonesuch")) is None  # torch is there


def test_the_modules_are_those_of_the_extras() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        named = [re.split(r"[^\w-]", line, maxsplit=1)[0] for line in extras[extra]]
        assert [name.replace("-", "_") for name in named] == list(modules)
