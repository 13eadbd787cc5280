"""`kill -9` at random instants, in the middle of writes too: afterwards all accounts are right."""

import subprocess
import sys
from pathlib import Path

import pytest
from accounts import check_ended, comparable
from small_study import stores_at

from qm9flow.tracking.stores import Stores
from qm9flow.tuning.coordinator import StudyResult

SCRIPT = Path(__file__).with_name("small_study.py")


def under_fire(
    folder: Path, kills: int, seed: int, undisturbed: StudyResult | None, slots: int = 1
) -> int:
    """Kill a study again and again, so many times; hold it to what an undisturbed one gives."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), "coordinator", *map(str, (kills, seed, slots))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    hits = int(done.stdout.split()[0])
    assert hits >= min(kills, 3), done.stdout
    trials = check_ended(stores_at(folder), 5)
    if undisturbed is not None:
        assert comparable(trials) == comparable(undisturbed.trials)
    return hits


@pytest.mark.slow
def test_a_killed_study_goes_on(tmp_path: Path, undisturbed: tuple[Stores, StudyResult]):
    assert under_fire(tmp_path, 4, 1, undisturbed[1]) >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 8))
def test_a_study_killed_many_times_goes_on(
    tmp_path: Path, undisturbed: tuple[Stores, StudyResult], seed: int
):
    assert under_fire(tmp_path, 25, seed, undisturbed[1]) >= 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_coordinator_of_several_workers_killed_ten_times(tmp_path: Path):
    pytest.importorskip("ray")
    assert under_fire(tmp_path, 10, 11, None, slots=2) >= 3
