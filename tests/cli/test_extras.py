"""On an installation without an extra, a command says in one line what it misses."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from qm9flow.cli.extras import EXTRAS, explained

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
NOTHING = ",".join(module for modules in EXTRAS.values() for module in modules)
HOOK = """
import sys

absent = sys.argv.pop(1).split(",")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from qm9flow.cli.main import main
main()
"""


def run(absent: str, words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command on an installation without some modules."""
    return subprocess.run(
        [sys.executable, "-c", HOOK, absent, *words.split()],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


@pytest.mark.parametrize(
    "words",
    [
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
    ],
)
def test_without_the_extra_a_command_says_what_to_install(words: str, tmp_path: Path) -> None:
    done = run(NOTHING, words, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "pip install 'qm9flow[train]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "mlflow.db").exists()


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
    done = run(absent, words, tmp_path)
    assert done.returncode == 1
    extra = "serve" if absent == "bentoml" else "train"
    assert done.stderr == (
        f"Error: this needs {absent}, which is not installed: pip install 'qm9flow[{extra}]'\n"
    )
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize("words", ["predict --smiles C", "models --help", "study run --help"])
def test_commands_that_need_no_extra_work_without_any(words: str, tmp_path: Path) -> None:
    done = run(NOTHING, words, tmp_path)
    assert done.returncode == 0, done.stderr


def test_other_modules_are_not_explained_away() -> None:
    assert explained(ModuleNotFoundError("no", name="nonesuch")) is None
    assert explained(ModuleNotFoundError("no", name="torch.nonesuch")) is None  # torch is there


def test_the_modules_are_those_of_the_extras() -> None:
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    for extra, modules in EXTRAS.items():
        named = [re.split(r"[^\w-]", line, maxsplit=1)[0] for line in extras[extra]]
        assert [name.replace("-", "_") for name in named] == list(modules)
