"""conda.yaml, pyproject.toml and the lock name the same packages at versions that agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK_PLATFORM = {"sys_platform": "linux"}
EXTRAS = ("train", "serve", "cluster", "postgres")
"""What an environment for the whole project holds."""


def read_lock() -> dict[str, str]:
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line).groups()
            pins[canonicalize_name(name)] = version
    return pins


def read_conda() -> list[Requirement]:
    entries = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return [Requirement(text) for text in pip]


def read_pyproject(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["optional-dependencies"][extra] for extra in extras]
    return [Requirement(text) for text in sum(groups, project["dependencies"])]


def on_lock_platform(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(LOCK_PLATFORM)


@pytest.mark.parametrize("requirement", read_conda(), ids=str)
def test_conda_pins_what_the_lock_pins(requirement: Requirement) -> None:
    if on_lock_platform(requirement):
        assert str(requirement.specifier) == f"=={read_lock()[canonicalize_name(requirement.name)]}"


@pytest.mark.parametrize("requirement", read_pyproject(*EXTRAS, "dev"), ids=str)
def test_the_lock_satisfies_pyproject(requirement: Requirement) -> None:
    if on_lock_platform(requirement):
        assert read_lock()[canonicalize_name(requirement.name)] in requirement.specifier


def test_conda_names_all_that_runs_the_project() -> None:
    conda = {canonicalize_name(item.name) for item in read_conda()}
    project = {canonicalize_name(item.name) for item in read_pyproject(*EXTRAS)}
    assert conda == project
