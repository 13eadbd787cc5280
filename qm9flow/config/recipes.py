"""Trainings to start from."""

from collections.abc import Mapping
from typing import Any

from qm9flow.config.networks import DensityConfig
from qm9flow.config.plain import from_dict, to_dict
from qm9flow.config.training import TrainConfig
from qm9flow.errors import ConfigError

RECIPES: dict[str, TrainConfig] = {
    "group": TrainConfig(),
    "flagship": TrainConfig(
        model=DensityConfig(),
        split="standard",
        loss="mae",
        weighting="balanced",
        optimizer="soap",
        learning_rate=3e-3,
        weight_decay=1e-2,
        batch_size=64,
        warmup_steps=500,
        schedule="cosine",
        grad_clip=5.0,
        max_epochs=60,
    ),
}
"""Trainings by name; `docs/models.md` says what the flagship's was chosen by."""
DEFAULT_RECIPE = "flagship"


def train_from_dict(data: Mapping[str, Any]) -> TrainConfig:
    """A training from plain values, over a recipe.

    Args:
        data: Some or all fields of `TrainConfig`, and `recipe`, one of `RECIPES`.

    Returns:
        The configuration; a `model` in the data replaces the recipe's.

    Raises:
        ConfigError: An unknown recipe or option, or a value of a wrong type or out of range.
    """
    options = dict(data)
    recipe = options.pop("recipe", DEFAULT_RECIPE)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; the recipes are {', '.join(RECIPES)}")
    return from_dict(TrainConfig, to_dict(RECIPES[recipe]) | options)


def before_heads(train: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded training, perhaps of a time when `density` had no heads.

    Args:
        train: As `to_dict` wrote it.

    Returns:
        The same, `heads` 0 where a `density` has none on record: not today's default.
    """
    model = train.get("model")
    if not isinstance(model, Mapping) or model.get("architecture") != DensityConfig.architecture:
        return dict(train)
    return {**train, "model": {"heads": 0, **model}}
