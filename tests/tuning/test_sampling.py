"""Samplers: the same history and number give the same point, and grids are exact."""

import math

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from qm9flow.errors import ConfigError
from qm9flow.tuning.history import History
from qm9flow.tuning.sampling import even_order, make_sampler
from qm9flow.tuning.spaces import PRESETS, FloatRange, IntRange, Space, check_params

SEED = PRESETS["seed"]
SMALL = Space(
    "small",
    {
        "conv_layers": IntRange(1, 3, grid=(1, 2, 3)),
        "learning_rate": FloatRange(1e-4, 1e-1, log=True, grid=(1e-4, 1e-2)),
    },
    SEED.recipe,
    first={"conv_layers": 2, "learning_rate": 1e-3},
)


def loss(params: dict[str, float]) -> float:
    """A made-up score with its minimum inside the space."""
    return (math.log10(params["learning_rate"]) + 2.5) ** 2 + (
        math.log2(params["hidden"] / 48)
    ) ** 2


def new_history(storage: InMemoryStorage) -> History:
    try:
        study_id = storage.get_study_id_from_name("s")
    except KeyError:
        study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "s")
    history = History(storage, study_id, "s")
    history.load()
    return history


def run(name: str, n_trials: int, restart_every: int, seed: int = 0) -> list[dict[str, float]]:
    """The points of a study whose process is replaced now and then."""
    storage = InMemoryStorage()
    history, sampler = new_history(storage), make_sampler(name, SEED, seed)
    for done in range(n_trials):
        if done % restart_every == 0:
            history, sampler = new_history(storage), make_sampler(name, SEED, seed)
        number = history.ask(sampler, SEED, {})
        assert number == done
        params = history.trial(number).params
        check_params(SEED, params)
        history.report(number, 1, loss(params))
        pruned = number % 3 == 1
        history.tell(number, TrialState.PRUNED if pruned else TrialState.COMPLETE, loss(params))
    return [trial.params for trial in history.trials]


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_a_restarted_study_draws_the_same_points(name):
    straight = run(name, 30, restart_every=1000)
    assert run(name, 30, restart_every=1) == straight
    assert run(name, 30, restart_every=7) == straight
    assert straight[0] == SEED.first
    assert len({tuple(sorted(point.items())) for point in straight}) == 30


def test_another_seed_draws_other_points():
    assert run("tpe", 5, 10, seed=1)[1:] != run("tpe", 5, 10, seed=2)[1:]


def test_tpe_learns():
    points = [[loss(point) for point in run("tpe", 30, 1000, seed)] for seed in (5, 6)]
    late = np.concatenate([scores[20:] for scores in points])
    early = np.concatenate([scores[1:11] for scores in points])
    assert np.median(late) < 0.7 * np.median(early)


def test_a_grid_is_exact_and_starts_with_the_first_point():
    history, sampler = new_history(InMemoryStorage()), make_sampler("grid", SMALL, 0)
    assert sampler.size == 3 * 2 + 1 == 7  # the first point is not on the grid
    points = []
    for _ in range(7):
        number = history.ask(sampler, SMALL, {})
        points.append(history.trial(number).params)
        history.tell(number, TrialState.COMPLETE, 1.0)
    assert points[0] == SMALL.first
    assert {(point["conv_layers"], point["learning_rate"]) for point in points[1:]} == {
        (layers, rate) for layers in (1, 2, 3) for rate in (1e-4, 1e-2)
    }
    with pytest.raises(ConfigError, match="the grid has 7 points"):
        history.ask(sampler, SMALL, {})


def test_the_group_s_grid_has_its_best_setting_once():
    sampler = make_sampler("grid", SEED, 0)
    assert sampler.size == 4 * 4 * 7 * 11 * 5


@pytest.mark.parametrize("sizes", [(4, 4, 7, 11, 5), (3,), (2, 2), (1, 5)])
def test_each_beginning_of_a_grid_is_spread_evenly(sizes):
    order = np.array(even_order(sizes))
    assert len(np.unique(order, axis=0)) == len(order) == math.prod(sizes)
    for length in (20, 100, 1800):
        if length < len(order):
            for dimension, size in enumerate(sizes):
                counts = np.bincount(order[:length, dimension], minlength=size)
                assert np.abs(counts - length / size).max() <= 2 + 0.03 * length


def test_a_space_without_grid_points_is_refused():
    bare = Space("bare", {"hidden": IntRange(2, 8)}, SEED.recipe)
    with pytest.raises(ConfigError, match="no grid points for hidden"):
        make_sampler("grid", bare, 0)
    with pytest.raises(ConfigError, match="tpe, random, grid"):
        make_sampler("annealing", bare, 0)
