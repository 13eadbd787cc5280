"""Search spaces and the trainings that their points stand for."""

import dataclasses

import pytest

from qm9flow.config import MPNNConfig, StudyConfig
from qm9flow.errors import ConfigError
from qm9flow.tuning.spaces import (
    PRESETS,
    Choice,
    FloatRange,
    IntRange,
    Space,
    derive_seed,
    get_space,
    to_train_config,
)

SEED = PRESETS["seed"]
BEST = {
    "conv_layers": 4,
    "fc_layers": 4,
    "hidden": 64,
    "batch_size": 128,
    "learning_rate": 1e-3,
}


def test_preset_seed_is_the_group_s():
    bounds = {name: (item.low, item.high, item.log) for name, item in SEED.parameters.items()}
    assert bounds == {
        "conv_layers": (1, 4, False),
        "fc_layers": (1, 4, False),
        "hidden": (2, 128, True),
        "batch_size": (1, 1024, True),
        "learning_rate": (1e-5, 1e-1, True),
    }
    assert SEED.first == BEST
    recipe = SEED.recipe
    assert (recipe.optimizer, recipe.loss, recipe.split) == ("adam", "rmse", "seed")
    assert recipe.schedule == "constant"
    assert recipe.warmup_steps > 0
    assert recipe.ema_decay is not None


def test_a_point_becomes_a_training():
    study = StudyConfig(train_size=500, val_size=100, max_epochs=5, split="standard", device="cpu")
    train = to_train_config(BEST, study, 3)
    assert train.model == MPNNConfig(conv_layers=4, fc_layers=4, hidden=64)
    assert (train.batch_size, train.learning_rate) == (128, 1e-3)
    assert (train.train_size, train.val_size, train.max_epochs) == (500, 100, 5)
    assert (train.split, train.device) == ("standard", "cpu")


def test_seeds_belong_to_the_trial_and_the_study():
    seeds = {
        to_train_config(BEST, StudyConfig(seed=seed), number).seed
        for seed in range(5)
        for number in range(50)
    }
    assert len(seeds) == 250
    assert derive_seed(1, 2, stream=1) != derive_seed(1, 2, stream=2)
    assert derive_seed(1, 2, stream=1) == derive_seed(1, 2, stream=1)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hidden": 129}, "hidden=129"),
        ({"hidden": 8.0}, r"hidden=8\.0"),
        ({"learning_rate": 1.0}, r"learning_rate=1\.0"),
        ({"depth": 3}, "depth"),
    ],
)
def test_a_point_outside_is_refused(change, what):
    with pytest.raises(ConfigError, match=what):
        to_train_config(BEST | change, StudyConfig(), 0)


def test_wrong_spaces_are_refused():
    with pytest.raises(ConfigError, match="low below high"):
        IntRange(3, 3)
    with pytest.raises(ConfigError, match="above 0"):
        FloatRange(0.0, 1.0, log=True)
    with pytest.raises(ConfigError, match="grid points"):
        IntRange(1, 4, grid=(1, 5))
    with pytest.raises(ConfigError, match="distinct"):
        Choice(("a", "a"))
    with pytest.raises(ConfigError, match="'wheels'"):
        Space("odd", {"wheels": IntRange(1, 4)}, SEED.recipe)
    with pytest.raises(ConfigError, match="the presets are seed"):
        get_space("sead")


def test_the_digest_sees_ranges_grid_recipe_and_first_point():
    others = [
        dataclasses.replace(SEED, first=None),
        dataclasses.replace(SEED, recipe=dataclasses.replace(SEED.recipe, loss="mae")),
        dataclasses.replace(SEED, parameters=dict(SEED.parameters) | {"hidden": IntRange(2, 128)}),
    ]
    digests = {space.digest for space in [SEED, *others]}
    assert len(digests) == 4
    assert dataclasses.replace(SEED).digest == SEED.digest
