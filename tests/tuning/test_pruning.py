"""Successive halving: rungs, and who passes them."""

import math

from hypothesis import given
from hypothesis import strategies as st

from qm9flow.config import StudyConfig
from qm9flow.training.schedule import molecules_of
from qm9flow.tuning.pruning import REDUCTION, goes_on, rungs, rungs_of, stops
from qm9flow.tuning.spaces import get_space, to_train_config

SCORES = st.lists(st.floats(0, 10, allow_nan=False), max_size=60)


def test_rungs_are_stated():
    assert rungs(9) == (1, 3)
    assert rungs(27) == (1, 3, 9)
    assert rungs(30) == (1, 3, 10)
    assert rungs(4) == (1,)
    assert rungs(2) == rungs(1) == ()


@given(st.integers(1, 10_000))
def test_rungs_rise_below_the_last_epoch(max_epochs):
    found = rungs(max_epochs)
    assert list(found) == sorted(set(found))
    assert all(1 <= epoch < max_epochs for epoch in found)


@given(SCORES)
def test_the_first_and_the_best_go_on(others):
    assert goes_on(1.0, [])
    assert goes_on(min(others, default=1.0) - 1e-3, others)


@given(SCORES, st.floats(0, 10), st.floats(0, 10))
def test_a_better_score_never_hurts(others, one, other):
    low, high = sorted((one, other))
    assert goes_on(low, others) or not goes_on(high, others)


@given(st.lists(st.floats(0, 10), min_size=3, max_size=60, unique=True))
def test_of_trials_that_are_there_a_third_would_go_on(scores):
    passing = sum(
        goes_on(score, scores[:place] + scores[place + 1 :]) for place, score in enumerate(scores)
    )
    assert passing == len(scores) // REDUCTION


@given(SCORES)
def test_who_is_not_finite_stops_and_holds_nobody_back(others):
    assert not goes_on(math.nan, others)
    assert not goes_on(math.inf, others)
    assert goes_on(5.0, [math.nan, math.inf])


@given(st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=9), min_size=1, max_size=30))
def test_the_decision_depends_on_told_values_alone(told):
    """Play a study one trial after another; then decide again from what was told."""
    at = rungs(9)
    scores: dict[int, dict[int, float]] = {}
    for number, values in enumerate(told):
        scores[number] = {}
        for epoch, value in enumerate(values, start=1):
            scores[number][epoch] = value
            if stops(number, epoch, scores, at):
                break
        last = max(scores[number])
        again = {other: dict(values) for other, values in reversed(scores.items())}
        assert stops(number, last, scores, at) == stops(number, last, again, at)
        assert stops(number, last, scores, at) <= (last in at)


def test_only_rungs_stop():
    scores = {0: {1: 0.1, 2: 0.1, 3: 0.1}, 1: {1: 0.05, 2: 9.0, 3: 9.0}}
    assert not stops(1, 1, scores, (1, 3))
    assert not stops(1, 2, scores, (1, 3))
    assert stops(1, 3, scores, (1, 3))


def test_the_training_set_grows_at_the_rungs() -> None:
    params = dict(get_space("seed").first or {})
    grown, whole = (
        to_train_config(params, StudyConfig(max_epochs=9, halving=halving), 0)
        for halving in ("train_size", "epochs")
    )
    seen = [molecules_of(epoch, grown, 900) for epoch in (1, 2, 3, 4, 9)]
    assert seen == [100, 300, 300, 900, 900]
    assert whole.growth == 0
    assert rungs_of(StudyConfig(max_epochs=9, halving="train_size")) == (1, 3)
    assert rungs_of(StudyConfig(max_epochs=9, halving="off")) == ()
