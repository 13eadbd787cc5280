"""Spaces with branches: the preset `modern`, from a single draw to the end of a study."""

import dataclasses
import math
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from accounts import check_ended, comparable
from databases import put_database
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from small_study import run_study, small_config, stores_at, with_recipe
from test_sampling import new_history

from qm9flow.config import (
    GOALS,
    DensityConfig,
    MPNNConfig,
    PaiNNConfig,
    SchNetConfig,
    StudyConfig,
    TrainConfig,
)
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.evaluation.report.facts import read_facts
from qm9flow.evaluation.report.write import write_report
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.tracking.stores import Stores
from qm9flow.tuning.ranges import FloatRange, IntRange
from qm9flow.tuning.retention import estimate_size
from qm9flow.tuning.sampling import make_sampler
from qm9flow.tuning.spaces import PRESETS, Branch, Space, check_params, get_space, to_train_config

MODERN = PRESETS["modern"]
SHARED = ["optimizer", "learning_rate", "batch_size", "weight_decay"]
OWN = {
    "density": ["layers", "hidden", "vectors", "channels", "radial"],
    "painn": ["interactions", "hidden"],
    "schnet": ["interactions", "hidden"],
    "mpnn": ["conv_layers", "fc_layers", "hidden", "edge_width"],
}
SMALL = Space(
    "small",
    parameters={"learning_rate": FloatRange(1e-4, 1e-1, log=True, grid=(1e-4, 1e-2))},
    recipe=TrainConfig(),
    branches=(
        Branch(PaiNNConfig(fc_layers=1), {"hidden": IntRange(2, 8, log=True, grid=(2, 4, 8))}),
        Branch(MPNNConfig(), {"conv_layers": IntRange(1, 2, grid=(1, 2))}),
        Branch(SchNetConfig(), {}),
    ),
    first={"architecture": "mpnn", "mpnn_conv_layers": 2, "learning_rate": 1e-2},
)
POINT = {"architecture": "painn", "painn_hidden": 4, "learning_rate": 1e-2}


def loss(params: dict[str, float]) -> float:
    """A made-up score: SchNet at a rate of 2e-3 is best, then the wider the better."""
    architecture = params["architecture"]
    worse = {"schnet": 0.0, "painn": 0.5, "density": 1.0, "mpnn": 1.5}[architecture]
    width = math.log2(params[f"{architecture}_hidden"] / 128)
    return worse + math.log10(params["learning_rate"] / 2e-3) ** 2 + 0.2 * width**2


def run(name: str, n_trials: int, restart_every: int = 1000, seed: int = 0) -> list[dict]:
    """The points of a study whose process is replaced now and then."""
    storage = InMemoryStorage()
    for done in range(n_trials):
        if done % restart_every == 0:
            history, sampler = new_history(storage), make_sampler(name, MODERN, seed)
        number = history.ask(sampler, MODERN, {})
        params = history.trial(number).params
        history.report(number, 1, loss(params))
        state = TrialState.PRUNED if number % 3 == 1 else TrialState.COMPLETE
        history.tell(number, state, loss(params))
    return [trial.params for trial in history.trials]


def test_the_flagship_s_recommended_setting_comes_first() -> None:
    train = to_train_config(MODERN.first, StudyConfig(preset="modern"), 0)
    assert train.model == DensityConfig(layers=3, hidden=64, vectors=64, channels=16, radial=12)
    assert (train.optimizer, train.learning_rate, train.batch_size) == ("soap", 3e-3, 64)
    assert (train.weight_decay, train.loss, train.weighting) == (1e-2, "mae", "balanced")
    assert (train.ema_decay, train.grad_clip, train.schedule) == (0.999, 5.0, "constant")
    assert train.warmup_steps > 0


def test_a_point_has_its_branch_s_parameters_and_is_a_network() -> None:
    points = run("random", 40)
    assert points[0] == MODERN.first
    assert set(Counter(point["architecture"] for point in points)) == set(OWN)
    for number, point in enumerate(points):
        architecture = point["architecture"]
        own = [f"{architecture}_{name}" for name in OWN[architecture]]
        assert sorted(point) == sorted(["architecture", *own, *SHARED])
        train = to_train_config(point, StudyConfig(preset="modern"), number)
        assert train.model.architecture == architecture
        assert {name: point[f"{architecture}_{name}"] for name in OWN[architecture]} == {
            name: getattr(train.model, name) for name in OWN[architecture]
        }
        assert {name: point[name] for name in SHARED} == {
            name: getattr(train, name) for name in SHARED
        }
        with torch.device("meta"):
            assert build(train.model, LEARNED).hidden_matrices()
    size = estimate_size(MODERN, StudyConfig(preset="modern"))
    assert 1e5 < size.models < 1e8


@pytest.mark.parametrize("name", ["tpe", "random", "grid"])
def test_a_restarted_study_draws_the_same_points(name: str) -> None:
    straight = run(name, 24)
    assert run(name, 24, restart_every=5) == straight
    assert straight[0] == MODERN.first
    assert len({tuple(sorted(point.items())) for point in straight}) == 24
    for point in straight:
        check_params(MODERN, point)


def test_tpe_learns_across_branches() -> None:
    points = [run("tpe", 48, seed=seed) for seed in (3, 4)]
    late = [point for drawn in points for point in drawn[36:]]
    early = [point for drawn in points for point in drawn[1:13]]
    assert np.median(list(map(loss, late))) < 0.6 * np.median(list(map(loss, early)))
    best = Counter(point["architecture"] for point in late)
    assert best["schnet"] > len(late) / 2


def test_a_grid_visits_every_branch_in_turn() -> None:
    sampler = make_sampler("grid", SMALL, 0)
    assert sampler.size == 3 * 2 + 2 * 2 + 2
    history = new_history(InMemoryStorage())
    points = []
    for _ in range(sampler.size):
        number = history.ask(sampler, SMALL, {})
        points.append(history.trial(number).params)
        check_params(SMALL, points[-1])
        history.tell(number, TrialState.COMPLETE, 1.0)
    assert points[0] == SMALL.first
    assert len({tuple(sorted(point.items())) for point in points}) == sampler.size
    counts = Counter(point["architecture"] for point in points)
    assert counts == {"painn": 6, "mpnn": 4, "schnet": 2}
    assert {point["architecture"] for point in points[:4]} == {"painn", "mpnn", "schnet"}


def test_the_grid_of_modern_is_spread_over_its_branches() -> None:
    sampler = make_sampler("grid", MODERN, 0)
    assert sampler.size == 64 * (3**5 + 3 * 3 + 4 * 4 + 4 * 4 * 4 * 3)
    counts = Counter(point["architecture"] for point in run("grid", 41))
    assert all(9 <= counts[architecture] <= 11 for architecture in OWN)


@pytest.mark.parametrize("name", ["tpe", "grid"])
def test_enqueued_values_decide_on_the_branch(name: str) -> None:
    storage = InMemoryStorage()
    history, sampler = new_history(storage), make_sampler(name, MODERN, 0)
    study = optuna.load_study(study_name="s", storage=storage)
    study.enqueue_trial({"architecture": "painn", "batch_size": 77})  # before the first point
    study.enqueue_trial({"architecture": "mpnn", "mpnn_hidden": 17, "painn_hidden": 99})
    history = new_history(storage)
    for number in (0, 1):
        assert history.ask(sampler, MODERN, {}) == number
        check_params(MODERN, history.trial(number).params)
        assert storage.get_all_trials(0)[number].params == history.trial(number).params
    painn, mpnn = (trial.params for trial in history.trials)
    assert (painn["architecture"], painn["batch_size"]) == ("painn", 77)
    assert (mpnn["architecture"], mpnn["mpnn_hidden"]) == ("mpnn", 17)


@pytest.mark.parametrize(
    ("point", "what"),
    [
        ({"learning_rate": 1e-2}, "painn, mpnn, schnet; got None"),
        (POINT | {"architecture": "gcn"}, "painn, mpnn, schnet; got 'gcn'"),
        (POINT | {"architecture": "mpnn"}, "has architecture, mpnn_conv_layers, learning_rate; "),
        (POINT | {"mpnn_conv_layers": 1}, "has architecture, painn_hidden, learning_rate; got"),
        (POINT | {"painn_hidden": 9}, "painn_hidden=9 lies outside"),
        (POINT | {"learning_rate": 1.0}, r"learning_rate=1\.0 lies outside"),
    ],
)
def test_a_bad_point_is_refused_in_one_line(point: dict, what: str) -> None:
    check_params(SMALL, POINT)
    with pytest.raises(ConfigError, match=what) as caught:
        to_train_config(point, StudyConfig(), 0, SMALL)
    assert "\n" not in str(caught.value)


def test_wrong_branches_are_refused() -> None:
    with pytest.raises(ConfigError, match="'wheels' is none of network 'mpnn'"):
        Branch(MPNNConfig(), {"wheels": IntRange(1, 4)})
    branch = Branch(MPNNConfig(), {"hidden": IntRange(1, 4)})
    with pytest.raises(ConfigError, match="two branches of one architecture"):
        Space("odd", {}, TrainConfig(), branches=(branch, branch))
    with pytest.raises(ConfigError, match="'hidden' is of every point and of a branch"):
        Space("odd", {"hidden": IntRange(1, 4)}, TrainConfig(), branches=(branch,))
    two = (branch, Branch(SchNetConfig(), {}))
    with pytest.raises(ConfigError, match="'conv_layers' is neither"):
        Space("odd", {"conv_layers": IntRange(1, 4)}, TrainConfig(), branches=two)
    with pytest.raises(ConfigError, match="no grid points for mpnn_hidden"):
        make_sampler("grid", Space("bare", {}, TrainConfig(), branches=(branch,)), 0)


def test_a_field_that_all_networks_have_may_be_shared() -> None:
    space = Space(
        "shared",
        {"cutoff_angstrom": FloatRange(3.0, 8.0)},
        TrainConfig(),
        branches=(Branch(MPNNConfig(), {}), Branch(SchNetConfig(hidden=8), {})),
    )
    point = {"architecture": "schnet", "cutoff_angstrom": 4.0}
    train = to_train_config(point, StudyConfig(), 0, space)
    assert train.model == SchNetConfig(hidden=8, cutoff_angstrom=4.0)


def test_the_digest_sees_branches_but_not_what_is_never_used() -> None:
    painn, *others = SMALL.branches
    spaces = [
        SMALL,
        dataclasses.replace(SMALL, branches=(painn, *others[::-1])),
        dataclasses.replace(
            SMALL, branches=(dataclasses.replace(painn, network=PaiNNConfig()), *others)
        ),
        dataclasses.replace(
            SMALL,
            branches=(Branch(painn.network, {"hidden": IntRange(2, 9)}), *others),
        ),
        with_recipe(SMALL, weighting="balanced"),
        with_recipe(SMALL, compile=True),
    ]
    assert len({space.digest for space in spaces}) == len(spaces)
    assert with_recipe(SMALL, model=SchNetConfig()).digest == SMALL.digest


def test_scores_of_two_meanings_do_not_meet_in_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_space("seed").digest
    monkeypatch.setattr("qm9flow.tuning.spaces.OBJECTIVE", 3)
    assert get_space("seed").digest != before


def test_trials_of_two_losses_do_not_meet_in_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: get_space(name).digest for name in ("seed", "modern")}
    monkeypatch.setitem(GOALS, "zpve", 1.0)
    assert get_space("seed").digest == before["seed"]
    assert get_space("modern").digest != before["modern"]


@pytest.mark.slow
def test_a_study_ends_and_is_drawn(stores: Stores, dataset: Dataset, tmp_path: Path) -> None:
    config = small_config(preset="modern", sampler="grid", max_epochs=1)
    space = with_recipe(MODERN, threads=1)
    result = run_study(stores, dataset, config, space=space)
    trials = check_ended(stores, 4)
    assert {trial.params["architecture"] for trial in trials} >= {"density", "painn", "schnet"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = write_report(read_facts(stores, "demo"), tmp_path / "report")
    assert set(report.missing) == {"importances", "health"}
    # Stopped after each trial and started again, it is the same study.
    (tmp_path / "again").mkdir()
    put_database(tmp_path / "again")
    again = stores_at(tmp_path / "again")
    for n_trials in (1, 2, 4):
        options = dataclasses.replace(config, n_trials=n_trials)
        parts = run_study(again, dataset, options, space=space)
    assert comparable(parts.trials) == comparable(result.trials)
