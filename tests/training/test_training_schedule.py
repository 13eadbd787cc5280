"""Learning rates."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qm9flow.config import TrainConfig
from qm9flow.training.schedule import Budget, learning_rate, molecules_of, plateau_after

CONFIG = TrainConfig(learning_rate=0.01, warmup_steps=10)
budgets = st.builds(
    Budget,
    step=st.integers(0, 10_000),
    total_steps=st.integers(1, 10_000),
    elapsed_seconds=st.floats(0, 1e5),
    total_seconds=st.none() | st.floats(0, 1e5),
)


def test_warm_up_rises_linearly_to_the_learning_rate() -> None:
    rates = [learning_rate(CONFIG, Budget(step, 1000)) for step in range(12)]
    assert rates == pytest.approx([0.001 * min(step + 1, 10) for step in range(12)])


def test_warm_up_is_at_most_a_tenth_of_all_steps() -> None:
    rates = [learning_rate(replace(CONFIG, warmup_steps=200), Budget(i, 40)) for i in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])
    assert learning_rate(CONFIG, Budget(0, 3)) == 0.01


def test_warm_up_is_at_most_a_tenth_of_the_time() -> None:
    config = replace(CONFIG, warmup_steps=500)
    seen = [learning_rate(config, Budget(2 * i, 10**6, 1.0 * i, 60.0)) for i in range(8)]
    assert seen == pytest.approx([0.01 * min(1.0, max((2 * i + 1) / 500, i / 6)) for i in range(8)])
    assert seen[6] == seen[7] == 0.01


def test_cosine_is_half_way_down_in_the_middle_and_zero_at_the_end() -> None:
    config = replace(CONFIG, schedule="cosine", warmup_steps=0)
    assert learning_rate(config, Budget(50, 100)) == pytest.approx(0.005)
    assert learning_rate(config, Budget(100, 100)) == pytest.approx(0.0, abs=1e-12)


def test_cosine_follows_the_nearer_of_two_budgets() -> None:
    config = replace(CONFIG, schedule="cosine", warmup_steps=0)
    assert learning_rate(config, Budget(10, 100, 30.0, 60.0)) == pytest.approx(0.005)
    assert learning_rate(config, Budget(50, 100, 6.0, 60.0)) == pytest.approx(0.005)
    assert learning_rate(config, Budget(10, 100, 61.0, 60.0)) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(config, Budget(10, 100, 0.0, 0.0)) == pytest.approx(0.00975, rel=1e-2)


@given(budgets, st.sampled_from(["constant", "cosine", "plateau"]), st.floats(0, 1))
def test_the_rate_never_leaves_its_range(budget: Budget, schedule: str, factor: float) -> None:
    rate = learning_rate(replace(CONFIG, schedule=schedule), budget, factor)
    assert 0.0 <= rate <= CONFIG.learning_rate


@given(budgets)
def test_cosine_never_rises_after_warm_up(budget: Budget) -> None:
    config = replace(CONFIG, schedule="cosine", warmup_steps=0)
    later = replace(budget, step=budget.step + 1, elapsed_seconds=budget.elapsed_seconds + 1)
    assert learning_rate(config, later) <= learning_rate(config, budget)


def test_plateau_halves_after_three_epochs_without_a_better_score() -> None:
    factor, waited = 1.0, 0
    seen = []
    for is_best in (True, False, False, True, False, False, False, False, False, False):
        factor, waited = plateau_after(factor, waited, is_best=is_best)
        seen.append(factor)
    assert seen == [1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    config = replace(CONFIG, schedule="plateau", warmup_steps=0)
    assert learning_rate(config, Budget(5, 100), factor) == pytest.approx(0.0025)


def test_a_growing_training_set_triples_up_to_all_molecules() -> None:
    config = replace(CONFIG, max_epochs=9, growth=2)
    seen = [molecules_of(epoch, config, 100) for epoch in range(1, 10)]
    assert seen == [12, 34, 34, *[100] * 6]
    assert [molecules_of(epoch, CONFIG, 100) for epoch in (1, 30)] == [100, 100]


@given(st.integers(1, 200), st.integers(0, 10), st.integers(1, 10_000))
def test_a_training_set_never_shrinks(epochs: int, growth: int, molecules: int) -> None:
    config = replace(CONFIG, max_epochs=epochs, growth=growth)
    seen = [molecules_of(epoch, config, molecules) for epoch in range(1, epochs + 1)]
    assert seen == sorted(seen)
    assert seen[0] >= 1
    assert seen[-1] == molecules
