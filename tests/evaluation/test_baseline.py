"""Baselines on the whole of QM9."""

import numpy as np
import pytest

from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset
from qm9flow.evaluation.baseline import constant_baseline, constant_errors, linear_baseline
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
    constant = mean_absolute_errors(constant_baseline(dataset, SPLIT, SPLIT.test), truth)
    assert line["u0"] == pytest.approx(0.864, abs=0.01)
    assert line["homo"] == pytest.approx(0.414, abs=0.01)
    assert line["a"] < 1e-4
    assert all(line[name] < constant[name] for name in TARGETS)


def test_line_is_consistent_with_itself(dataset: Dataset) -> None:
    values = linear_baseline(dataset, SPLIT, SPLIT.test[:100])
    by_name = dict(zip(TARGETS, values.T, strict=True))
    assert (by_name["gap"] == by_name["lumo"] - by_name["homo"]).all()
    np.testing.assert_allclose(by_name["h"] - by_name["u"], 0.0256926, atol=1e-6)


def test_constant_is_the_training_mean(dataset: Dataset) -> None:
    values = constant_baseline(dataset, SPLIT, np.array([0, 1]))
    mean = dataset.truth()[SPLIT.train].mean(axis=0)
    assert (values == mean).all()
    assert values.shape == (2, 19)


def test_pooled_error_of_the_constant(dataset: Dataset) -> None:
    """Why a pooled error of raw targets says little: one molecule's A moves it by 300."""
    errors = constant_errors(dataset, range(6))
    assert [entry.seed for entry in errors] == list(range(6))
    assert all(505 < entry.rmse_without_a < 525 for entry in errors)
    largest = int(np.argmax(dataset.truth()[:, TARGETS.index("a")]))
    for entry in errors:
        is_held_out = largest not in make_split("seed", seed=entry.seed).train
        low, high = (870, 920) if is_held_out else (495, 575)
        assert low < entry.rmse < high


def test_pooled_error_by_hand(dataset: Dataset) -> None:
    split = make_split("seed", seed=2)
    held_out = np.concatenate([split.validation, split.test])
    predicted = constant_baseline(dataset, split, held_out)
    expected = pooled_rmse(predicted, dataset.truth()[held_out])
    assert constant_errors(dataset, [2])[0].rmse == pytest.approx(expected, rel=1e-12)
