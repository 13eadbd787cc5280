"""Options that fit the machine."""

import dataclasses
from pathlib import Path

import pytest

from qm9flow.config import Halving, StudyConfig
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.executors import Placement
from qm9flow.tuning.study import open_study
from qm9flow.workflows.fitting import FITTED, HALVED, TRAIN_SIZES, fitted, mean_molecules


@pytest.fixture
def dataset() -> Dataset:
    return open_dataset()


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        optuna_url=f"sqlite:///{tmp_path}/optuna.db",
        tensorboard_dir=tmp_path / "tensorboard",
        state_dir=tmp_path / "state",
    )


@pytest.mark.parametrize(
    ("halving", "seen"),
    [("off", 9.0), ("epochs", 1 + 2 / 3 + 6 / 9), ("train_size", 1 / 9 + 2 / 9 + 6 / 9)],
)
def test_molecules_that_a_trial_sees(halving: Halving, seen: float) -> None:
    study = StudyConfig(halving=halving)
    expected = 900 * seen * (1.0 if halving == "off" else HALVED)
    assert mean_molecules(study, 900, 0.0) == pytest.approx(expected)
    assert mean_molecules(StudyConfig(max_epochs=1), 900, 30.0) == 930.0


@pytest.mark.slow
def test_many_trials_have_small_training_sets(dataset: Dataset, stores: Stores) -> None:
    few, many = (
        fitted(StudyConfig(n_trials=n, device="cpu"), FITTED, stores, dataset, Placement(2))
        for n in (12, 50_000)
    )
    assert few.study.train_size == TRAIN_SIZES[-1]
    assert many.study.train_size == TRAIN_SIZES[0]
    assert few.study.trial_minutes is not None
    assert many.study.trial_minutes is not None
    assert few.study.trial_minutes > many.study.trial_minutes >= 0.1
    assert few.study.final_minutes == 10.0
    assert many.study.final_minutes == 30.0
    assert (few.study.finalists, many.study.finalists) == (0, 16)
    assert few.chosen == many.chosen == FITTED
    assert few.search_minutes is not None
    assert many.search_minutes is not None
    assert 0.0 < few.search_minutes < many.search_minutes


def test_what_was_said_stays(dataset: Dataset, stores: Stores) -> None:
    said = StudyConfig(n_trials=5, train_size=None, final_minutes=2.0, device="cpu")
    found = fitted(said, (), stores, dataset, None)
    assert found.study == said
    assert found.chosen == ()
    assert found.search_minutes is not None
    assert found.search_minutes > 1.0


def test_a_study_goes_on_with_what_was_chosen_for_it(dataset: Dataset, stores: Stores) -> None:
    study = StudyConfig(study_name="mine", n_trials=5, train_size=1234, final_minutes=7.0)
    with open_study(stores, "mine", study, dataset.digest):
        pass
    again = StudyConfig(study_name="mine", n_trials=9, final_minutes=3.0)
    found = fitted(again, ("train_size", "trial_minutes"), stores, dataset, None)
    assert found.study == dataclasses.replace(again, train_size=1234)
    assert found.search_minutes is None


def test_on_a_cluster_of_unknown_size_defaults_stay(dataset: Dataset, stores: Stores) -> None:
    study = StudyConfig(n_trials=1000, ray_address="auto")
    found = fitted(study, FITTED, stores, dataset, Placement(None, address="auto"))
    assert found.study == dataclasses.replace(study, finalists=16)
    assert found.chosen == ("finalists",)
