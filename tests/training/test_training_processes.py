"""Trainings that several processes share."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from qm9flow.config import TrainConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.training.events import CheckpointReady, EpochEnded, Failed, Finished
from qm9flow.training.fit import fit


@pytest.fixture
def two(tiny: TrainConfig) -> TrainConfig:
    """Two processes; the last of seven steps has one molecule, none for the second process."""
    return replace(tiny, processes=2, train_size=193, max_epochs=2)


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_the_steps_make_up_the_steps(
    tiny: TrainConfig, dataset: Dataset, parts: int
) -> None:
    molecules = ResidentMolecules.load(dataset, np.arange(400, 593), None, "cpu")
    whole = molecules.batches(32, torch.Generator().manual_seed(1))
    shares = [
        molecules.batches(32, torch.Generator().manual_seed(1), share=(rank, parts))
        for rank in range(parts)
    ]
    for step, *of_parts in zip(whole, *shares, strict=True):
        expected = sorted(place for batch in step for place in batch.index.tolist())
        found = [[int(i) for batch in part for i in batch.index] for part in of_parts]
        assert sorted(chain.from_iterable(found)) == expected
        assert max(map(len, found)) - min(map(len, found)) <= 1
    with pytest.raises(ConfigError, match="one molecule for each share"):
        molecules.batches(1, torch.Generator(), share=(0, 2))


def test_two_processes_train_as_one_does(
    tiny: TrainConfig, two: TrainConfig, dataset: Dataset
) -> None:
    """The same steps, up to the rounding of sums in another order."""
    *_, one = fit(replace(two, processes=1), dataset)
    *_, both = fit(two, dataset)
    assert isinstance(one, Finished)
    assert isinstance(both, Finished), both
    assert both.best_metrics["val/score"] == pytest.approx(one.best_metrics["val/score"], rel=1e-4)
    mine, theirs = load(one.weights), load(both.weights)
    for name, tensor in mine.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=2e-4)
    assert multiprocessing.active_children() == []


def test_it_goes_on_with_another_number_of_processes(two: TrainConfig, dataset: Dataset) -> None:
    stream = fit(two, dataset)
    blob = next(event.blob for event in stream if isinstance(event, CheckpointReady))
    stream.close()
    assert multiprocessing.active_children() == []
    *_, resumed = fit(replace(two, processes=1), dataset, checkpoint=blob)
    assert isinstance(resumed, Finished)
    assert resumed.epochs == 2


def test_a_killed_member_is_a_crash_that_is_told(two: TrainConfig, dataset: Dataset) -> None:
    stream = fit(replace(two, max_epochs=1000), dataset)
    for event in stream:
        if isinstance(event, EpochEnded) and event.epoch == 1:
            (member,) = multiprocessing.active_children()
            member.kill()
        if isinstance(event, Failed):
            break
    assert isinstance(event, Failed)
    assert event.reason == "crash"
    assert event.message.startswith("a process that took part in the training has ended")
    assert multiprocessing.active_children() == []


def test_a_member_that_never_joins_is_a_crash_that_is_told(
    two: TrainConfig, dataset: Dataset
) -> None:
    """It is killed while it still imports torch."""

    def kill_the_first() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    (event,) = fit(two, dataset)
    killer.join()
    assert isinstance(event, Failed)
    assert event.reason == "crash"
    assert "ended before it took part (exit code -9)" in event.message
    assert multiprocessing.active_children() == []


def test_members_never_hear_ctrl_c(two: TrainConfig, dataset: Dataset) -> None:
    stream = fit(two, dataset)
    next(stream)
    (member,) = multiprocessing.active_children()
    assert member.pid is not None
    os.kill(member.pid, signal.SIGINT)
    *_, end = stream
    assert isinstance(end, Finished)


def test_a_step_has_a_molecule_for_each_process(tiny: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="processes must be at most batch_size"):
        replace(tiny, processes=3, batch_size=2)


def test_two_teams_in_one_process_are_refused(two: TrainConfig, dataset: Dataset) -> None:
    first = fit(two, dataset)
    next(first)
    (second,) = fit(two, dataset)
    assert isinstance(second, Failed)
    assert second.reason == "impossible"
    assert "on several processes already" in second.message
    *_, end = first
    assert isinstance(end, Finished)


@pytest.mark.slow
def test_members_end_with_a_killed_leader(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "qm9flow", "train", "--name", "killed", "--device", "cpu"]
    words += ["--train-size", "4000", "--epochs", "50", "--threads", "1", "--processes", "2"]
    leader = subprocess.Popen(words, cwd=tmp_path, start_new_session=True)
    checkpoint = tmp_path / "mlruns/state/trainings/killed/checkpoint.safetensors"
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert leader.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    members = _session_of(leader.pid)
    assert len(members) >= 2
    os.kill(leader.pid, signal.SIGKILL)
    leader.wait()
    while _session_of(leader.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _session_of(leader: int) -> list[int]:
    """Processes of the session that a process began."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]
