"""`qm9flow data` as a user calls it."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from qm9flow import properties
from qm9flow.cli import progress
from qm9flow.cli.main import cli, main
from qm9flow.data import geometry_set, store
from qm9flow.data.store import Dataset


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as a shell does: exit status, standard output and error."""
    command = [sys.executable, "-m", "qm9flow", "data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Called:
    """The same from its `main` on, in this process."""

    def called(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qm9flow", "data", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return called


def test_prepare_uses_the_cache_that_is_there(dataset: Dataset) -> None:
    result = run("prepare", "--json")
    assert result.returncode == 0
    assert result.stderr == ""
    assert json.loads(result.stdout) == {
        "molecules": 130_831,
        "digest": dataset.digest,
        "folder": str(dataset.folder),
    }


def test_info_as_json(dataset: Dataset) -> None:
    result = CliRunner().invoke(cli, ["data", "info", "--verify", "--json"])
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["verified"] is True
    assert facts["digest"] == dataset.digest
    assert facts["atoms"] == 2_359_210
    assert facts["sizes"]["smallest"] == 3
    assert facts["sizes"]["largest"] == 29
    assert facts["bytes"] <= 120e6
    assert facts["elements"]["F"] == {"atoms": 3036, "molecules": 1923}
    assert list(facts["targets"]) == list(properties.TARGETS)
    assert facts["targets"]["gap"]["unit"] == "eV"
    assert facts["targets"]["mu"]["maximum"] == 29.5564
    assert facts["splits"]["standard"]["test"] == 10_831
    assert len(facts["splits"]["seed"]["digest"]) == 64
    assert "140022" in facts["citation"]
    assert "CC0" in facts["licence"]
    assert "qm9pack 1.0.3" in facts["licence"]
    assert "MIT" in facts["licence"]


def test_info_for_people(dataset: Dataset) -> None:
    result = CliRunner().invoke(cli, ["data", "info", "--split-seed", "3"])
    assert result.exit_code == 0
    assert "130,831 molecules, 2,359,210 atoms" in result.stdout
    assert dataset.digest in result.stdout
    rows = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line}
    assert set(properties.TARGETS) <= set(rows)
    assert rows["cv"][1:3] == ["cal/(mol", "K)"]
    assert rows["seed"][1:5] == ["91,581", "19,625", "19,625", "3"]
    assert "public domain (CC0)" in result.stdout
    assert "MIT License" in result.stdout


def test_damaged_cache_is_an_error_that_says_what_to_do(
    dataset: Dataset, tmp_path: Path, call: Called
) -> None:
    folder = tmp_path / dataset.folder.name
    folder.mkdir()
    for path in dataset.folder.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "raw.npy").unlink()
    (folder / "raw.npy").write_bytes(b"half of it")
    status, out, err = call("info", "--verify", "--cache", str(tmp_path))
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")
    assert "qm9flow data prepare --force" in err
    assert "Traceback" not in err


def test_a_cache_of_another_format_is_named_and_left_alone(
    dataset: Dataset, tmp_path: Path, call: Called
) -> None:
    for name in (dataset.folder.name, "qm9", "qm9-format1"):
        (tmp_path / name).mkdir()
        for path in dataset.folder.iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    for name in ("qm9-empty", "models"):
        (tmp_path / name).mkdir()
    old = {"format": 1, "tables": {}, "arrays": {}}
    for name in ("qm9", "qm9-format1"):
        (tmp_path / name / "manifest.json").unlink()
        (tmp_path / name / "manifest.json").write_text(json.dumps(old))
    status, out, err = call("info", "--json", "--cache", str(tmp_path))
    assert status == 0, err
    facts = json.loads(out)
    assert facts["folder"] == str(tmp_path / dataset.folder.name)
    others = [str(tmp_path / name) for name in ("qm9", "qm9-format1")]
    assert [other["folder"] for other in facts["other_caches"]] == others
    lines = call("info", "--cache", str(tmp_path))[1].splitlines()
    assert [sum(f"{other} (" in line for line in lines) for other in others] == [1, 1]
    assert json.loads((tmp_path / "qm9" / "manifest.json").read_text()) == old


@pytest.mark.parametrize("arguments", [("prepare",), ("prepare", "--force"), ("info",)])
def test_unwritable_cache_is_an_error_that_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], call: Called
) -> None:
    (tmp_path / "file").write_text("")
    status, _, err = call(*arguments, "--cache", str(tmp_path / "file" / "cache"))
    assert status == 1
    assert err.startswith("Error: cannot write the cache")
    assert "QM9FLOW_CACHE" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["conformers", "relaxed"])
def test_geometries_are_made_with_lines_in_a_log(
    command: str, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(
        dataset, folder=tmp_path / "qm9", ptr=dataset.ptr[:31], index=dataset.index[:30]
    )
    monkeypatch.setattr(store, "open_dataset", lambda *_: few)
    monkeypatch.setattr(geometry_set, "SHARD", 10)
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    result = CliRunner().invoke(cli, ["data", command, "--workers", "1", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["molecules"] == 30
    lines = result.stderr.splitlines()
    assert lines[0].startswith("1 of 30 molecules (3%)")
    assert lines[11].startswith("12 of 30 molecules (40%)")
    assert "molecules/s" in lines[11]
    assert "left" in lines[11]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "arguments", "goes_on"),
    [
        (signal.SIGINT, (), "the same command goes on"),
        (signal.SIGTERM, ("--force",), "the same command without --force goes on"),
    ],
)
def test_ctrl_c_keeps_shards_and_says_how_to_go_on(
    dataset: Dataset, tmp_path: Path, number: int, arguments: tuple[str, ...], goes_on: str
) -> None:
    (tmp_path / dataset.folder.name).symlink_to(dataset.folder)
    options = ("--cache", str(tmp_path), "--workers", "1", *arguments)
    with subprocess.Popen(
        [sys.executable, "-m", "qm9flow", "data", "relaxed", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until = time.monotonic() + 90
        while not list(tmp_path.glob("*-shards/*.npz")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.1)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert f"Interrupted: the shards that are done are kept, {goes_on}" in err
    assert "Aborted" not in err
    assert "Traceback" not in err
    psutil.wait_procs(family, timeout=20)
    assert not [child for child in family if child.is_running()]
    assert list(tmp_path.glob("*-shards/*.npz"))


@pytest.mark.slow
def test_prepare_force_makes_it_anew(tmp_path: Path) -> None:
    result = run("prepare", "--force", "--cache", str(tmp_path))
    assert result.returncode == 0
    assert "130,831 molecules" in result.stdout
    assert run("info", "--verify", "--cache", str(tmp_path)).returncode == 0
