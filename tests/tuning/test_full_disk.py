"""A disk that is full in the middle of a study: it waits, or ends with a message, and goes on.

As a script, `test_full_disk.py FOLDER MODE`, it does so in a folder that is a small file system.
"""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from accounts import check_ended, comparable
from small_study import make_template, run_study, small_config, stores_at

from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import StudyError
from qm9flow.tuning import history
from qm9flow.tuning.executors import Answer, InProcessExecutor

N_TRIALS = 5
FULL_AFTER = 4
"""Epochs."""

ROOM_AFTER_SECONDS = 10.0


def fill(ballast: Path) -> None:
    """Take all the room that there is."""
    with ballast.open("wb", buffering=0) as file:
        for size in (2**16, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


class Filling(InProcessExecutor):
    """Fills the disk after some epochs, and may make room again after a while."""

    def __init__(self, dataset: Dataset, ballast: Path, is_to_be_emptied: bool) -> None:
        super().__init__(dataset)
        self.left = FULL_AFTER
        self.ballast, self.is_to_be_emptied = ballast, is_to_be_emptied

    def collect(self) -> list[Answer]:
        answers = super().collect()
        before, self.left = self.left, self.left - len(answers)
        if before > 0 >= self.left:
            fill(self.ballast)
            if self.is_to_be_emptied:
                threading.Timer(ROOM_AFTER_SECONDS, self.ballast.unlink).start()
        return answers


def go_through(folder: Path, mode: str) -> None:
    """Run a study on a disk that fills up, until it has ended; hold it to its promises."""
    shutil.copy(make_template(folder.parent / "template"), folder / "mlflow.db")
    stores, ballast, dataset = stores_at(folder), folder / "ballast", open_dataset()
    config = small_config(n_trials=N_TRIALS)
    if mode == "waits":
        run_study(stores, dataset, config, executor=Filling(dataset, ballast, True))
    else:
        history.PAUSES_SECONDS = (0.1, 0.3)
        with pytest.raises(StudyError, match=r"database or disk is full.*nothing is lost"):
            run_study(stores, dataset, config, executor=Filling(dataset, ballast, False))
        ballast.unlink()
        run_study(stores, dataset, config)
    trials = check_ended(stores, N_TRIALS)
    alone = run_study(stores, dataset, config, name="alone")
    assert comparable(trials) == comparable(alone.trials)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["waits", "ends"])
def test_a_full_disk_costs_no_trial(tmp_path: Path, mode: str) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    (tmp_path / "template").mkdir()
    script = 'mount -t tmpfs -o size=8m tmpfs "$1" && exec "$2" "$3" "$1" "$4"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, "bash", folder, sys.executable, __file__, mode],
        capture_output=True,
        text=True,
        check=False,
    )
    if "mount:" in done.stderr or "unshare:" in done.stderr:
        pytest.skip(f"no small file system can be mounted: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr


if __name__ == "__main__":
    go_through(Path(sys.argv[1]), sys.argv[2])
