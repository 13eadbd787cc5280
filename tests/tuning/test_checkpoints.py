"""Checkpoints on disk: the old one or the new one, never half of one."""

import pytest

from qm9flow.training.events import EpochEnded
from qm9flow.tuning.checkpoints import CheckpointFolder, Tally


def test_the_newest_comes_back_with_its_tally(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.load(3) == (None, Tally())
    tally = Tally(seconds=1.5, parameters=10)
    tally.take(EpochEnded(1, {"val/score": 0.5}, None, is_best=True))
    tally.take(EpochEnded(2, {"val/score": 0.7}, None, is_best=False))
    folder.save(3, b"old", Tally())
    folder.save(3, b"new", tally)
    assert folder.load(3) == (b"new", tally)
    assert (tally.epochs, tally.best_epoch, tally.best) == (2, 1, {"val/score": 0.5})
    folder.delete(3)
    assert folder.load(3) == (None, Tally())
    folder.save_tally(3, tally)
    assert folder.load(3) == (None, tally)
    folder.delete(3)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_cut_off_write_leaves_the_old_one(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(3, b"old", Tally(epochs=1))
    (tmp_path / "00003.safetensors.part").write_bytes(b"ne")
    assert folder.load(3) == (b"old", Tally(epochs=1))
    (tmp_path / "00003.json").write_text('{"epochs": ')
    assert folder.load(3) == (None, Tally())


def test_only_running_trials_keep_theirs(tmp_path):
    folder = CheckpointFolder(tmp_path / "none")
    folder.keep_only(set())
    folder = CheckpointFolder(tmp_path)
    for number in range(3):
        folder.save(number, b"x", Tally())
    (tmp_path / "00001.safetensors.part").write_bytes(b"x")
    folder.keep_only({2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00002.json", "00002.safetensors"]


def test_a_disk_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        CheckpointFolder(tmp_path / "file" / "folder").save(0, b"x", Tally())
