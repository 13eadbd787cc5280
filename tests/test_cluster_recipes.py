"""The recipes of docs/cluster: whatever can be checked without SLURM and Kubernetes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import qm9flow
from qm9flow import config
from qm9flow.cli import study
from qm9flow.cli.main import cli
from qm9flow.config import StudyConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SBATCH = (DOCS / "cluster" / "slurm.sbatch").read_text()
DOCKERFILE = (DOCS / "cluster" / "Dockerfile").read_text()
SERVER = {"--host", "--port", "--serve-artifacts", "--allowed-hosts", "--backend-store-uri"}
SERVER |= {"--artifacts-destination"}


def documents() -> dict[str, Any]:
    text = (DOCS / "cluster" / "rayjob.yaml").read_text()
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


def joined(text: str) -> list[str]:
    """Lines of a script, those with a backslash at their end put together."""
    return text.replace("\\\n", " ").splitlines()


def studies() -> list[list[str]]:
    """All `qm9flow study run` commands, their arguments."""
    entrypoint = shlex.split(documents()["RayJob"]["spec"]["entrypoint"])[-1]
    pages = [(DOCS / name).read_text() for name in ("cluster.md", "servers.md")]
    lines = [line for text in (SBATCH, entrypoint, *pages) for line in joined(text)]
    found = [re.search(r"qm9flow study run ( *--.*)", line) for line in lines]
    commands = [
        shlex.split(item[1], comments=True) for item in found if item and "`" not in item[0]
    ]
    return [command for command in commands if "..." not in command]


def test_there_are_studies_to_look_at() -> None:
    assert len(studies()) == 4


@pytest.mark.parametrize("arguments", studies(), ids=" ".join)
def test_studies_have_options_that_exist(arguments: list[str]) -> None:
    command = study.command.commands["run"]
    context = command.make_context("run", list(arguments), parent=click.Context(cli))
    given = {name: value for name, value in context.params.items() if value is not None}
    config = StudyConfig(**{name: value for name, value in given.items() if name != "config"})
    assert given
    assert {name: getattr(config, name) for name in given} == given


@pytest.mark.parametrize("text", [SBATCH], ids=["slurm.sbatch"])
def test_scripts_are_bash(text: str) -> None:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ray_has_the_options_that_are_used() -> None:
    pytest.importorskip("ray")
    (line,) = [line for line in joined(SBATCH) if "symmetric-run" in line and "srun" in line]
    options = set(re.findall(r"(--[a-z-]+) ", line.split(" -- ")[0]))
    assert options == {"--address", "--min-nodes", "--num-cpus", "--num-gpus"}
    helps = [
        subprocess.run(
            [Path(sys.executable).with_name("ray"), command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in ("symmetric-run", "start")
    ]
    assert all(option in "".join(helps) for option in options)


def test_mlflow_has_the_options_that_are_used() -> None:
    from mlflow.cli import cli as mlflow

    known = {name for option in mlflow.commands["server"].params for name in option.opts}
    (line,) = [
        line for line in joined((DOCS / "servers.md").read_text()) if "mlflow server --h" in line
    ]
    assert set(re.findall(r"--[a-z-]+", line)) == SERVER <= known


def test_the_ray_job_is_whole() -> None:
    job = documents()["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    (images,) = {tuple(_images(group)) for group in groups}
    assert images == (f"registry.example.org/qm9flow:{qm9flow.__version__}",)
    assert images[0] in DOCKERFILE
    lock = (ROOT / "requirements.lock").read_text()
    assert f"ray=={cluster['rayVersion']}\n" in lock
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    (volume,) = head["volumes"]
    claim = documents()["PersistentVolumeClaim"]["metadata"]["name"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim
    (mount,) = head["containers"][0]["volumeMounts"]
    assert mount["name"] == volume["name"]
    assert f"cd {mount['mountPath']} " in job["spec"]["entrypoint"]


def _images(group: dict[str, Any]) -> list[str]:
    return [item["image"] for item in group["template"]["spec"]["containers"]]


def test_the_image_holds_extras_that_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/src\[([a-z,]+)\]", DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_options_are_described_as_they_are() -> None:
    page = (DOCS / "cluster.md").read_text()
    for name in ("n_jobs", "gpus_per_trial", "ray_address"):
        assert name in config.to_dict(StudyConfig())
        assert f"`--{name.replace('_', '-')}`" in page
