"""Verdicts on made-up gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm9flow.training.verdicts import (
    CONSECUTIVE,
    SEVERITY,
    SILENT_MOLECULES,
    Sample,
    judge,
    worse,
)

LAYERS = 6


def sample(
    loss: float = 1.0,
    rms: float | list[float] = 0.1,
    elasticity: float = 0.1,
    norm: float = 1.0,
    molecules: int = 32,
) -> Sample:
    gradients = np.broadcast_to(np.asarray(rms, dtype=float), LAYERS)
    by_layer = np.full(LAYERS, elasticity)
    return Sample(0, molecules, loss, norm, gradients, by_layer, np.zeros(LAYERS))


FADING = list(np.geomspace(1e-9, 1e-1, LAYERS))
SILENT = [0, 0, 0, 0, 0.1, 0.3]


def test_no_samples_and_few_samples_are_healthy() -> None:
    assert judge([], 1.0) == "healthy"
    assert judge([sample(rms=FADING)] * (CONSECUTIVE - 1), 1.0) == "healthy"
    assert judge([sample(rms=SILENT)] * (CONSECUTIVE - 1), 1.0) == "healthy"


def test_early_layers_far_below_the_last_are_vanishing() -> None:
    assert judge([sample(rms=FADING)] * CONSECUTIVE, 1.0) == "vanishing"


def test_many_layers_without_any_gradient_are_dead() -> None:
    assert judge([sample(rms=SILENT)] * CONSECUTIVE, 1.0) == "dead_relu"
    assert judge([sample(rms=0.0)] * CONSECUTIVE, 1.0) == "dead_relu"


def test_a_third_of_the_layers_without_any_gradient_is_no_verdict() -> None:
    shallower = sample(rms=[0.1, 0, 0, 0.1, 0.2, 0.3])
    assert judge([shallower] * 20, 1.0) == "healthy"


def test_layers_without_any_gradient_do_not_count_as_vanishing() -> None:
    assert judge([sample(rms=[0, 0, 0.1, 0.1, 0.2, 0.3])] * 20, 1.0) == "healthy"
    fading = sample(rms=[0, 1e-9, 1e-8, 0.1, 0.2, 0.3])
    assert judge([fading] * CONSECUTIVE, 1.0) == "vanishing"


def test_single_molecules_must_agree_for_longer() -> None:
    silent = sample(rms=SILENT, molecules=1)
    assert judge([silent] * (SILENT_MOLECULES - 1), 1.0) == "healthy"
    assert judge([silent] * SILENT_MOLECULES, 1.0) == "dead_relu"
    almost = [silent] * (SILENT_MOLECULES - 1)
    woken = [*almost, sample(molecules=1), *almost]
    assert judge(woken, 1.0) == "healthy"


def test_slopes_that_change_nothing_are_vanishing() -> None:
    assert judge([sample(elasticity=1e-9)] * CONSECUTIVE, 1.0) == "vanishing"


def test_one_weak_layer_is_no_verdict() -> None:
    assert judge([sample(rms=[1e-9, 1, 1, 1, 1, 1])] * 20, 1.0) == "healthy"


def test_one_good_sample_in_between_is_healthy() -> None:
    weak, good = sample(rms=FADING), sample()
    assert judge([weak] * 4 + [good] + [weak] * 4, 1.0) == "healthy"
    assert judge([good] + [weak] * 5, 1.0) == "vanishing"


def test_a_loss_far_above_the_first_is_exploding() -> None:
    assert judge([sample(loss=2e2)] * CONSECUTIVE, 1.0) == "exploding"
    assert judge([sample(loss=2e2)] * CONSECUTIVE, 1e2) == "healthy"


def test_growing_gradients_far_above_the_usual_are_exploding() -> None:
    usual = [sample(norm=2.0)] * 10
    growing = [sample(norm=2e5 * 10**i) for i in range(CONSECUTIVE)]
    assert judge(usual + growing, 1.0) == "exploding"
    assert judge(usual + growing[::-1], 1.0) == "healthy"
    assert judge(usual + growing[: CONSECUTIVE - 1], 1.0) == "healthy"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_inf_are_dead_at_once(value: float) -> None:
    assert judge([sample(loss=value)], 1.0) == "dead"
    assert judge([sample(), sample(norm=value)], 1.0) == "dead"


@given(
    st.floats(1e-6, 1e6),
    st.lists(
        st.tuples(st.floats(1e-3, 1e5), st.floats(1e-3, 1e9), st.sampled_from([0.1, 1e-9, 0.0])),
        max_size=12,
    ),
)
def test_the_unit_of_the_loss_does_not_matter(
    unit: float, rows: list[tuple[float, float, float]]
) -> None:
    def samples(factor: float) -> list[Sample]:
        return [
            sample(loss * factor, [weak * factor] * 4 + [factor] * 2, 0.1, norm * factor)
            for loss, norm, weak in rows
        ]

    first = rows[0][0] if rows else 1.0
    # the next larger power of two, so that the factor rounds nothing
    factor = 2.0 ** math.ceil(math.log2(unit))
    assert judge(samples(1.0), first) == judge(samples(factor), first * factor)


@given(st.lists(st.sampled_from([0.1, 1e-9, 0.0]), max_size=24), st.integers(1, 100))
def test_the_steps_between_samples_do_not_matter(sizes: list[float], every: int) -> None:
    rows = [sample(rms=[size] * 4 + [0.1] * 2) for size in sizes]
    spread = [replace(row, step=every * place) for place, row in enumerate(rows)]
    assert judge(rows, 1.0) == judge(spread, 1.0)


def test_worse_is_the_more_serious() -> None:
    for i, low in enumerate(SEVERITY):
        for high in SEVERITY[i:]:
            assert worse(low, high) == worse(high, low) == high
