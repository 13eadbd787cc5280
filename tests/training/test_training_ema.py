"""Averaged weights."""

import contextlib

import pytest
import torch

from qm9flow.training.ema import WeightAverage, decay_at


def test_the_decay_warms_up() -> None:
    assert [decay_at(t, 0.999) for t in (0, 1, 90)] == [1 / 10, 2 / 11, 91 / 100]
    assert decay_at(10**6, 0.999) == 0.999


def test_the_average_has_its_closed_form() -> None:
    weights = torch.zeros(2, dtype=torch.float64)
    average = WeightAverage(weights, 0.5)
    history = [torch.tensor([float(t), t * t], dtype=torch.float64) for t in range(1, 30)]
    for value in history:
        weights.copy_(value)
        average.update()
    expected = torch.zeros(2, dtype=torch.float64)
    for t, value in enumerate(history):
        later = torch.tensor([decay_at(s, 0.5) for s in range(t + 1, len(history))])
        expected += (1 - decay_at(t, 0.5)) * later.double().prod() * value
    torch.testing.assert_close(average.values, expected, rtol=1e-6, atol=0)


def test_constant_weights_are_their_own_average() -> None:
    weights = torch.full((3,), 0.7)
    average = WeightAverage(weights, 0.999)
    for _ in range(100):
        average.update()
    torch.testing.assert_close(average.values, weights)


def test_the_average_is_used_inside_the_block_only() -> None:
    weights = torch.zeros(2)
    average = WeightAverage(weights, 0.9)
    weights.fill_(1.0)
    average.update()
    with average.applied():
        assert weights.tolist() == pytest.approx([0.9, 0.9])
    assert weights.tolist() == [1.0, 1.0]


def test_the_weights_come_back_after_an_error() -> None:
    weights = torch.ones(2)
    average = WeightAverage(weights, 0.9)
    average.values.zero_()
    with contextlib.suppress(KeyError), average.applied():
        raise KeyError
    assert weights.tolist() == [1.0, 1.0]


def test_without_decay_the_average_is_the_weights() -> None:
    weights = torch.zeros(2)
    average = WeightAverage(weights, None)
    weights.fill_(2.0)
    average.update()
    with average.applied():
        assert average.values.tolist() == [2.0, 2.0]
