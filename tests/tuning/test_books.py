"""Trials on record, when a kill falls between two of the books."""

from typing import Any

import pytest
from small_study import TINY, small_config

from qm9flow.config import to_dict
from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import EpochEnded
from qm9flow.tuning.books import Books
from qm9flow.tuning.study import open_study


def ended(epoch: int, score: float) -> EpochEnded:
    return EpochEnded(epoch, {"val/score": score}, None, True)


def test_a_trial_is_not_halved_at_a_rung_that_it_had_left(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()  # whose only rung is epoch 1
    with open_study(stores, "demo", config, "data", TINY) as study:
        books = Books(study, StudyTracker.open(stores, "demo", to_dict(config)))
        trial = books.begin()
        assert books.take(trial, ended(1, 0.9)) is None

        def killed(*args: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(study.history, "report", killed)
            with pytest.raises(KeyboardInterrupt):
                books.take(trial, ended(2, 0.8))  # MLflow and the tally have it, Optuna has not
        for score in (0.1, 0.2, 0.3):
            books.take(books.begin(), ended(1, score))
        again = books.resume(trial.number)
        assert books.decided(again) is None
        assert books.take(again, ended(2, 0.8)) is None
        assert study.history.trial(trial.number).intermediate_values == {1: 0.9, 2: 0.8}
