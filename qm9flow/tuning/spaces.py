"""Search spaces as data, and the training that a point of one stands for."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from qm9flow.config import (
    DensityConfig,
    ModelConfig,
    MPNNConfig,
    PaiNNConfig,
    SchNetConfig,
    StudyConfig,
    TrainConfig,
    goals_of,
    to_dict,
)
from qm9flow.errors import ConfigError
from qm9flow.tuning import pruning
from qm9flow.tuning.ranges import Choice, FloatRange, IntRange, Parameter, Value, contains

Params = dict[str, Value]

OBJECTIVE = 2
"""Raised whenever `val/score` comes to mean something else: scores of two meanings must not meet in
one study. 1 divided r2's error by the deviation of r2, 2 by that of what its known part leaves."""
TRIAL_STREAM = 1
SAMPLING_STREAM = 2

ARCHITECTURE = "architecture"
"""The parameter that says which branch of a space a point lies in."""


@dataclass(frozen=True)
class Branch:
    """One of the architectures of a space, and what is drawn only with it.

    Attributes:
        network: The architecture and those of its options that are not searched.
        options: Parameters by field of the network.
    """

    network: ModelConfig
    options: Mapping[str, Parameter]

    def __post_init__(self) -> None:
        for field in self.options:
            if not _is_of_model(field, self.network):
                raise ConfigError(f"parameter {field!r} is none of network {self.architecture!r}")

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return self.network.architecture

    @property
    def fields(self) -> dict[str, str]:
        """Fields of the network by parameter.

        A field's parameter has the architecture before it, as in `painn_hidden`: two networks'
        widths are different things, with ranges of their own.
        """
        return {f"{self.architecture}_{field}": field for field in self.options}

    @property
    def parameters(self) -> dict[str, Parameter]:
        """What is drawn only with this architecture, by name."""
        return {name: self.options[field] for name, field in self.fields.items()}


@dataclass(frozen=True)
class Space:
    """What a study searches, and the recipe that all of its trials share.

    Attributes:
        name: Of the preset.
        parameters: Of every point, by name, in the order in which they are drawn. A name is a
            field of `TrainConfig` or of the network: the recipe's, or that of all branches.
        recipe: Everything that is not searched.
        first: A point that is tried before all others, None for none.
        branches: If there are any, a point has the parameter `architecture`, which says which of
            them it lies in, and that branch's parameters; no other's. The recipe's network then
            means nothing.
    """

    name: str
    parameters: Mapping[str, Parameter]
    recipe: TrainConfig
    first: Mapping[str, Value] | None = None
    branches: tuple[Branch, ...] = ()

    def __post_init__(self) -> None:
        if len({branch.architecture for branch in self.branches}) < len(self.branches):
            raise ConfigError(f"space {self.name!r} has two branches of one architecture")
        networks = [branch.network for branch in self.branches] or [self.recipe.model]
        for name in self.parameters:
            is_of_model = all(_is_of_model(name, network) for network in networks)
            if not (is_of_model or name in _TRAIN_FIELDS):
                raise ConfigError(f"parameter {name!r} is neither of the network nor of a training")
            if any(name in branch.options for branch in self.branches):
                raise ConfigError(f"parameter {name!r} is of every point and of a branch as well")
        if self.first is not None:
            check_params(self, self.first)

    @property
    def architectures(self) -> Choice:
        """The branches' architectures; of a space that has branches."""
        return Choice(tuple(branch.architecture for branch in self.branches))

    def branch(self, params: Mapping[str, Value]) -> Branch | None:
        """The branch that a point lies in.

        Args:
            params: A point; only its architecture counts.

        Returns:
            The branch, None if the space has none.

        Raises:
            ConfigError: The point names no architecture, or one that is not searched.
        """
        if not self.branches:
            return None
        named = params.get(ARCHITECTURE)
        for branch in self.branches:
            if branch.architecture == named:
                return branch
        known = ", ".join(map(str, self.architectures.options))
        raise ConfigError(
            f"a point of space {self.name!r} has one of the architectures {known}; got {named!r}"
        )

    def parameters_of(self, params: Mapping[str, Value]) -> dict[str, Parameter]:
        """All parameters that a point has, in the order in which they are drawn.

        Args:
            params: A point; only its architecture counts.

        Returns:
            Parameters by name.

        Raises:
            ConfigError: The point names no architecture, or one that is not searched.
        """
        branch = self.branch(params)
        if branch is None:
            return dict(self.parameters)
        return {ARCHITECTURE: self.architectures, **branch.parameters, **self.parameters}

    @property
    def flat(self) -> tuple[dict[str, Parameter], ...]:
        """The space as flat ones, one a branch, in which `architecture` has one option."""
        if not self.branches:
            return (dict(self.parameters),)
        only = [{ARCHITECTURE: Choice((branch.architecture,))} for branch in self.branches]
        return tuple(
            {**choice, **branch.parameters, **self.parameters}
            for choice, branch in zip(only, self.branches, strict=True)
        )

    @property
    def digest(self) -> str:
        """Hash of everything that decides what a point means: ranges, grid, recipe, first."""
        recipe = to_dict(self.recipe)
        del recipe["gradient_stop"]  # the study's
        content: dict[str, Any] = {
            "objective": OBJECTIVE,
            "parameters": _plain(self.parameters),
            "recipe": recipe,
            "first": dict(self.first) if self.first else None,
        }
        if goals := goals_of(self.recipe.weighting):
            content["goals"] = goals
        if self.branches:
            del recipe["model"]
            content["branches"] = [
                [to_dict(branch.network), _plain(branch.options)] for branch in self.branches
            ]
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_TRAIN_FIELDS = {item.name for item in dataclasses.fields(TrainConfig)} - {"model", "seed"}


def _plain(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    return {
        name: [type(item).__name__, dataclasses.asdict(item)] for name, item in parameters.items()
    }


def _is_of_model(name: str, model: ModelConfig) -> bool:
    return name in {item.name for item in dataclasses.fields(model)}


def check_params(space: Space, params: Mapping[str, Value]) -> None:
    """Make sure that a point lies in a space.

    Args:
        space: The space.
        params: The point.

    Raises:
        ConfigError: A name is missing or unknown, or a value lies outside.
    """
    parameters = space.parameters_of(params)
    if set(params) != set(parameters):
        raise ConfigError(
            f"a point of space {space.name!r} has {', '.join(parameters)}; got {', '.join(params)}"
        )
    for name, value in params.items():
        if not contains(parameters[name], value):
            raise ConfigError(f"{name}={value!r} lies outside {parameters[name]}")


SPACES = (
    Space(
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
    ),
    Space(
        name="modern",
        branches=(
            Branch(
                DensityConfig(),
                {
                    "layers": IntRange(2, 4, grid=(2, 3, 4)),
                    "hidden": IntRange(32, 192, log=True, grid=(32, 64, 128)),
                    "vectors": IntRange(16, 96, log=True, grid=(16, 32, 64)),
                    "channels": IntRange(8, 48, log=True, grid=(8, 16, 32)),
                    "radial": IntRange(6, 16, grid=(8, 12, 16)),
                },
            ),
            Branch(
                PaiNNConfig(),
                {
                    "interactions": IntRange(2, 4, grid=(2, 3, 4)),
                    "hidden": IntRange(32, 128, log=True, grid=(32, 64, 128)),
                },
            ),
            Branch(
                SchNetConfig(),
                {
                    "interactions": IntRange(2, 5, grid=(2, 3, 4, 5)),
                    "hidden": IntRange(32, 192, log=True, grid=(32, 64, 128, 192)),
                },
            ),
            Branch(
                MPNNConfig(),
                {
                    "conv_layers": IntRange(1, 4, grid=(1, 2, 3, 4)),
                    "fc_layers": IntRange(1, 4, grid=(1, 2, 3, 4)),
                    "hidden": IntRange(16, 128, log=True, grid=(16, 32, 64, 128)),
                    "edge_width": IntRange(8, 32, log=True, grid=(8, 16, 32)),
                },
            ),
        ),
        parameters={
            "optimizer": Choice(("adamw", "soap")),
            "learning_rate": FloatRange(3e-4, 2e-2, log=True, grid=(3e-4, 1e-3, 3e-3, 1e-2)),
            "batch_size": IntRange(16, 256, log=True, grid=(16, 32, 64, 128)),
            "weight_decay": FloatRange(1e-4, 1e-1, log=True, grid=(1e-3, 1e-2)),
        },
        recipe=TrainConfig(
            loss="mae",
            weighting="balanced",
            schedule="constant",
            warmup_steps=200,
            ema_decay=0.999,
            grad_clip=5.0,
        ),
        first={
            "architecture": "density",
            "density_layers": 3,
            "density_hidden": 64,
            "density_vectors": 64,
            "density_channels": 16,
            "density_radial": 12,
            "optimizer": "soap",
            "learning_rate": 3e-3,
            "batch_size": 64,
            "weight_decay": 1e-2,
        },
    ),
)

PRESETS: dict[str, Space] = {space.name: space for space in SPACES}
"""`seed`: the group's own search, with its best setting first. `modern`: four architectures and
the optimiser, the flagship's recommended setting first. In both the rate stays constant after a
warm-up and averaged weights are judged, so that a trial of one epoch compares with one of nine;
and one loss serves all trials, so that their training errors compare. The averages need no search:
their decay rises with the steps, so that short trials forget their beginning as well."""


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
    branch = space.branch(params)
    network = branch.network if branch else space.recipe.model
    fields = {name: name for name in space.parameters if _is_of_model(name, network)}
    fields |= branch.fields if branch else {}
    of_model = {field: params[name] for name, field in fields.items()}
    of_training = {name: params[name] for name in space.parameters if name not in fields}
    return dataclasses.replace(
        space.recipe,
        model=dataclasses.replace(network, **cast(Any, of_model)),
        **cast(Any, of_training),
        split=study.split,
        train_size=study.train_size,
        val_size=study.val_size,
        max_epochs=study.max_epochs,
        growth=pruning.growth_of(study),
        max_minutes=study.trial_minutes,
        device=study.device,
        gradient_stop=study.gradient_stop,
        seed=derive_seed(study.seed, trial_number, TRIAL_STREAM),
    )
