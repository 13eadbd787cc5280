"""Baselines on the whole of QM9."""

import numpy as np
import pytest

from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.baseline import linear_baseline
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training.metrics import mean_absolute_errors, pooled_rmse

SPLIT = make_split("standard")
LEARNED_COLUMNS = [TARGETS.index(name) for name in LEARNED]


def test_line_is_the_least_squares_one(dataset: Dataset) -> None:
    """What it leaves is orthogonal to the composition and sums to zero, on training molecules."""
    rest = dataset.truth()[SPLIT.train] - linear_baseline(dataset, SPLIT, SPLIT.train)
    rest = rest[:, LEARNED_COLUMNS]
    scale = np.abs(rest).sum(axis=0)
    assert np.abs(rest.sum(axis=0) / scale).max() < 1e-8
    assert np.abs(dataset.counts()[SPLIT.train].T @ rest / scale).max() < 1e-7


def test_line_never_sees_held_out_molecules(dataset: Dataset) -> None:
    """Fitted on other molecules, it predicts otherwise; on the same ones, the same."""
    indices = SPLIT.test[:50]
    fewer = Split("standard", 0, SPLIT.train[:1000], SPLIT.validation, SPLIT.test)
    other = Split("standard", 0, SPLIT.train, SPLIT.test, SPLIT.validation)
    first = linear_baseline(dataset, SPLIT, indices)
    assert (first == linear_baseline(dataset, other, indices)).all()
    assert (first != linear_baseline(dataset, fewer, indices))[:, LEARNED_COLUMNS].all()


def test_line_on_test_molecules(dataset: Dataset) -> None:
    """Known size of the errors: far from chemical accuracy, far better than the mean."""
    truth = dataset.truth()[SPLIT.test]
    line = mean_absolute_errors(linear_baseline(dataset, SPLIT, SPLIT.test), truth)
    mean = dataset.truth()[SPLIT.train].mean(axis=0)[None]
    constant = mean_absolute_errors(np.repeat(mean, len(truth), axis=0), truth)
    assert line["u0"] == pytest.approx(0.864, abs=0.01)
    assert line["homo"] == pytest.approx(0.414, abs=0.01)
    assert line["a"] < 1e-4
    assert all(line[name] < constant[name] for name in TARGETS)


def test_line_is_consistent_with_itself(dataset: Dataset) -> None:
    values = linear_baseline(dataset, SPLIT, SPLIT.test[:100])
    by_name = dict(zip(TARGETS, values.T, strict=True))
    assert (by_name["gap"] == by_name["lumo"] - by_name["homo"]).all()
    np.testing.assert_allclose(by_name["h"] - by_name["u"], 0.0256926, atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_pooled_error_of_the_mean(dataset: Dataset, seed: int) -> None:
    """Why a pooled error of raw targets says little: one molecule's A moves it by 300."""
    truth = dataset.truth()
    split = make_split("seed", seed=seed)
    held_out = truth[np.concatenate([split.validation, split.test])]
    mean = truth[split.train].mean(axis=0)[None]
    assert 505 < pooled_rmse(mean, held_out, without=("a",)) < 525
    largest = int(np.argmax(truth[:, TARGETS.index("a")]))
    low, high = (495, 575) if largest in split.train else (870, 920)
    assert low < pooled_rmse(mean, held_out) < high
