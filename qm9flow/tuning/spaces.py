"""Search spaces as data, and the training that a point of one stands for."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from qm9flow.config import ModelConfig, MPNNConfig, StudyConfig, TrainConfig, to_dict
from qm9flow.errors import ConfigError

Value = int | float | str | bool
Params = dict[str, Value]

TRIAL_STREAM = 1
SAMPLING_STREAM = 2


@dataclass(frozen=True)
class IntRange:
    """Whole numbers between two bounds, both included.

    Attributes:
        low: Smallest.
        high: Largest.
        log: Whether they are drawn evenly on a logarithmic scale.
        grid: The values that the grid search visits.
    """

    low: int
    high: int
    log: bool = False
    grid: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True)
class FloatRange:
    """Numbers between two bounds.

    Attributes:
        low: Smallest.
        high: Largest.
        log: Whether they are drawn evenly on a logarithmic scale.
        grid: The values that the grid search visits.
    """

    low: float
    high: float
    log: bool = False
    grid: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True)
class Choice:
    """One of a few values without an order; the grid search visits all of them.

    Attributes:
        options: The values.
    """

    options: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(set(self.options)) < len(self.options) or not self.options:
            raise ConfigError(f"a choice needs distinct options, got {self.options}")

    @property
    def grid(self) -> tuple[Value, ...]:
        """The values that the grid search visits."""
        return self.options


Parameter = IntRange | FloatRange | Choice


def _check_range(range_: IntRange | FloatRange) -> None:
    if not range_.low < range_.high:
        raise ConfigError(f"a range needs low below high, got {range_.low} and {range_.high}")
    if range_.log and range_.low <= 0:
        raise ConfigError(f"a logarithmic range needs bounds above 0, got {range_.low}")
    outside = [value for value in range_.grid if not range_.low <= value <= range_.high]
    if outside or len(set(range_.grid)) < len(range_.grid):
        raise ConfigError(
            f"grid points must be distinct and lie between {range_.low} and {range_.high}, "
            f"got {range_.grid}"
        )


@dataclass(frozen=True)
class Space:
    """What a study searches, and the recipe that all of its trials share.

    Attributes:
        name: Of the preset.
        parameters: By name, in the order in which they are drawn. A name is a field of the
            recipe's network or of `TrainConfig`.
        recipe: Everything that is not searched.
        first: A point that is tried before all others, None for none.
    """

    name: str
    parameters: Mapping[str, Parameter]
    recipe: TrainConfig
    first: Mapping[str, Value] | None = None

    def __post_init__(self) -> None:
        for name in self.parameters:
            if not (_is_of_model(name, self.recipe.model) or name in _TRAIN_FIELDS):
                raise ConfigError(f"parameter {name!r} is neither of the network nor of a training")
        if self.first is not None:
            check_params(self, self.first)

    @property
    def digest(self) -> str:
        """Hash of everything that decides what a point means: ranges, grid, recipe, first."""
        content = {
            "parameters": {
                name: [type(item).__name__, dataclasses.asdict(item)]
                for name, item in self.parameters.items()
            },
            "recipe": to_dict(self.recipe),
            "first": dict(self.first) if self.first else None,
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def grid_size(self) -> int:
        """Points of the full grid."""
        return math.prod(len(item.grid) for item in self.parameters.values())


_TRAIN_FIELDS = {item.name for item in dataclasses.fields(TrainConfig)} - {"model", "seed"}


def _is_of_model(name: str, model: ModelConfig) -> bool:
    return name in {item.name for item in dataclasses.fields(model)}


def _contains(parameter: Parameter, value: Value) -> bool:
    if isinstance(parameter, Choice):
        return value in parameter.options
    if isinstance(value, str | bool):
        return False
    if isinstance(parameter, IntRange) and not isinstance(value, int):
        return False
    return parameter.low <= value <= parameter.high


def check_params(space: Space, params: Mapping[str, Value]) -> None:
    """Make sure that a point lies in a space.

    Args:
        space: The space.
        params: The point.

    Raises:
        ConfigError: A name is missing or unknown, or a value lies outside.
    """
    if set(params) != set(space.parameters):
        raise ConfigError(
            f"a point of space {space.name!r} has {', '.join(space.parameters)}; "
            f"got {', '.join(params)}"
        )
    for name, value in params.items():
        if not _contains(space.parameters[name], value):
            raise ConfigError(f"{name}={value!r} lies outside {space.parameters[name]}")


PRESETS: dict[str, Space] = {
    "seed": Space(
        name="seed",
        parameters={
            "conv_layers": IntRange(1, 4, grid=(1, 2, 3, 4)),
            "fc_layers": IntRange(1, 4, grid=(1, 2, 3, 4)),
            "hidden": IntRange(2, 128, log=True, grid=tuple(2**k for k in range(1, 8))),
            "batch_size": IntRange(1, 1024, log=True, grid=tuple(2**k for k in range(11))),
            "learning_rate": FloatRange(1e-5, 1e-1, log=True, grid=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1)),
        },
        recipe=TrainConfig(
            model=MPNNConfig(),
            split="seed",
            loss="rmse",
            optimizer="adam",
            schedule="constant",
            warmup_steps=200,
            ema_decay=0.999,
        ),
        first={
            "conv_layers": 4,
            "fc_layers": 4,
            "hidden": 64,
            "batch_size": 128,
            "learning_rate": 1e-3,
        },
    )
}
"""`seed`: the group's own search, with its best setting first. The rate stays constant after a
warm-up and averaged weights are judged, so that a trial of one epoch compares with one of nine."""


def get_space(preset: str) -> Space:
    """The search space of that name.

    Args:
        preset: One of `PRESETS`.

    Returns:
        The space.

    Raises:
        ConfigError: There is no such preset.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[preset]


def derive_seed(seed: int, trial_number: int, stream: int) -> int:
    """A seed that belongs to one trial, whoever asks and whenever.

    Args:
        seed: Of the study.
        trial_number: Counted from 0.
        stream: What it is for, so that two uses do not share their numbers.

    Returns:
        A whole number below 2^31.
    """
    state = np.random.SeedSequence([seed, trial_number, stream]).generate_state(1)
    return int(state[0]) >> 1


def to_train_config(
    params: Mapping[str, Any], study: StudyConfig, trial_number: int, space: Space | None = None
) -> TrainConfig:
    """The training that a trial stands for.

    Args:
        params: A point of the space.
        study: Sizes, epochs, split, device and seed.
        trial_number: Counted from 0; the training's seed follows from it and the study's.
        space: Where the point is from; none means the study's preset.

    Returns:
        The training's configuration.

    Raises:
        ConfigError: The point does not lie in the space.
    """
    space = space or get_space(study.preset)
    check_params(space, params)
    recipe = space.recipe
    of_model = {name: value for name, value in params.items() if _is_of_model(name, recipe.model)}
    of_training = {name: value for name, value in params.items() if name not in of_model}
    return dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, **cast(Any, of_model)),
        **cast(Any, of_training),
        split=study.split,
        train_size=study.train_size,
        val_size=study.val_size,
        max_epochs=study.max_epochs,
        max_minutes=study.trial_minutes,
        device=study.device,
        seed=derive_seed(study.seed, trial_number, TRIAL_STREAM),
    )
