"""Curves of a training, from its run to a file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qm9flow.errors import TrackingError
from qm9flow.tracking.curves import fetch_curves, read_curves, write_curves
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded, Finished


@pytest.mark.parametrize("folder", [None, "final"])
def test_curves_are_the_epochs_of_the_runs_training(
    study: StudyTracker,
    stores: Stores,
    make_epoch: Callable[[int], EpochEnded],
    tmp_path: Path,
    folder: str | None,
) -> None:
    with pytest.raises(TrackingError, match="holds no training"):
        fetch_curves(stores.tracking_uri, study.parent_run_id)
    training = study.open_training({}, tmp_path / "epochs.jsonl", name="mine", folder=folder)
    for epoch in (1, 2, 11):
        training.log(make_epoch(epoch))
    training.log(Finished("max_epochs", 11, 11, make_epoch(11).metrics, b"", "healthy"))
    training.finish("complete")
    curves = fetch_curves(stores.tracking_uri, study.parent_run_id)
    assert curves == {epoch: make_epoch(epoch).metrics for epoch in (1, 2, 11)}
    assert list(curves) == [1, 2, 11]

    write_curves(curves, tmp_path / "there" / "curves.csv")
    lines = (tmp_path / "there" / "curves.csv").read_text().splitlines()
    assert lines[0] == "epoch,val/gap/mae,val/score,train/loss"
    assert lines[3] == "11,0.0454545,0.0909091,0.181818"
    kept = read_curves(tmp_path / "there" / "curves.csv")
    assert list(kept) == [1, 2, 11]
    assert kept[11] == pytest.approx(curves[11], rel=1e-5)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(TrackingError, match="holds no curves"):
        read_curves(tmp_path / "other.csv")
    with pytest.raises(TrackingError, match="cannot be written"):
        write_curves(curves, tmp_path)


def test_curves_of_several_trainings_keep_their_names(
    study: StudyTracker,
    stores: Stores,
    make_epoch: Callable[[int], EpochEnded],
    tmp_path: Path,
) -> None:
    for name, last in (("refiner", 2), ("network", 3)):
        training = study.open_training({}, tmp_path / name / "epochs", name=name, folder=name)
        for epoch in range(1, last + 1):
            training.log(make_epoch(epoch))
        training.finish("complete")
    curves = fetch_curves(stores.tracking_uri, study.parent_run_id)
    both = [f"{name}/{key}" for name in ("network", "refiner") for key in make_epoch(1).metrics]
    assert sorted(curves[2]) == sorted(both)
    assert all(key.startswith("network/") for key in curves[3])
    assert curves[2]["refiner/val/score"] == make_epoch(2).metrics["val/score"]


def test_a_run_that_is_not_there_is_an_error_in_a_line(stores: Stores) -> None:
    with pytest.raises(TrackingError, match="cannot read run"):
        fetch_curves(stores.tracking_uri, "0" * 32)
