"""Where the next trial goes. The same history and number give the same point, in any process."""

import functools
import itertools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from qm9flow.config import Sampler
from qm9flow.errors import ConfigError
from qm9flow.tuning.ranges import Choice, IntRange, Parameter, Value
from qm9flow.tuning.spaces import (
    ARCHITECTURE,
    SAMPLING_STREAM,
    Params,
    Space,
    check_params,
    derive_seed,
)

GRID_DRAWS = 32
"""Quasi-random draws for each point of a grid, by which nearly all points have come up."""


def to_distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter's range in Optuna's words.

    Args:
        parameter: Of a space.

    Returns:
        The distribution.
    """
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.options)
    if isinstance(parameter, IntRange):
        return IntDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def distributions(space: Space, params: Mapping[str, Value]) -> dict[str, BaseDistribution]:
    """What a point was drawn from, in Optuna's words.

    Args:
        space: The space.
        params: The point; only its architecture counts.

    Returns:
        Distributions by name.

    Raises:
        ConfigError: The point names no architecture of the space.
    """
    return {name: to_distribution(item) for name, item in space.parameters_of(params).items()}


class TrialSampler(ABC):
    """Draws points of a space.

    Attributes:
        size: Points that there are, None if they do not run out.
    """

    size: int | None = None

    def limit(self, n_trials: int) -> int:
        """Trials that a study of so many can have.

        Args:
            n_trials: As asked for.

        Returns:
            Fewer where the points run out before.
        """
        return n_trials if self.size is None else min(n_trials, self.size)

    @abstractmethod
    def propose(self, trial: optuna.Trial, asked_for: Mapping[str, Value] | None = None) -> Params:
        """The point of a trial that was just asked for.

        Args:
            trial: A trial without parameters, of a study in memory that holds all trials before
                it under their numbers.
            asked_for: Values that are settled already.

        Returns:
            The point.
        """


def make_sampler(name: Sampler, space: Space, seed: int) -> TrialSampler:
    """The sampler of that name.

    Args:
        name: `tpe`, `random` or `grid`.
        space: What is searched.
        seed: Of the study.

    Returns:
        The sampler.

    Raises:
        ConfigError: There is no such sampler, or the space has no grid.
    """
    if name == "grid":
        return GridSampler(space)
    if name in ("tpe", "random"):
        return SeededSampler(name, space, seed)
    raise ConfigError(f"unknown sampler {name!r}; the samplers are tpe, random, grid")


class SeededSampler(TrialSampler):
    """Optuna's TPE (multivariate, grouped) or random search, seeded for each trial anew.

    So a study that was interrupted draws the points that it would have drawn without. Optuna's
    own samplers go on with a random state that dies with the process.
    """

    def __init__(self, name: Sampler, space: Space, seed: int) -> None:
        """Remember what to draw from.

        Args:
            name: `tpe` or `random`.
            space: What is searched.
            seed: Of the study.
        """
        self._name = name
        self._space = space
        self._seed = seed

    def propose(self, trial: optuna.Trial, asked_for: Mapping[str, Value] | None = None) -> Params:
        """The point of a trial that was just asked for.

        Args:
            trial: A trial without parameters, of a study in memory that holds all trials before.
            asked_for: Values that are settled already.

        Returns:
            The point: the space's first one for trial 0, then what the sampler says.
        """
        first = self._space.first if trial.number == 0 else None
        trial.study.sampler = self._seeded(trial.number)
        return _draw(trial, self._space, {**(first or {}), **(asked_for or {})})

    def _seeded(self, number: int) -> optuna.samplers.BaseSampler:
        seed = derive_seed(self._seed, number, SAMPLING_STREAM)
        if self._name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)


def _draw(trial: optuna.Trial, space: Space, settled: Mapping[str, Value]) -> Params:
    """A point with what is settled, as far as its branch has it; the sampler says the rest."""
    point: Params = {}

    def take(name: str, parameter: Parameter) -> None:
        if name not in point:
            point[name] = settled[name] if name in settled else _suggest(trial, name, parameter)

    if space.branches:
        take(ARCHITECTURE, space.architectures)
    for name, parameter in space.parameters_of(point).items():
        take(name, parameter)
    return point


def _suggest(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        return cast(Value, trial.suggest_categorical(name, parameter.options))
    if isinstance(parameter, IntRange):
        return trial.suggest_int(name, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)


class GridSampler(TrialSampler):
    """Every point of the grid once, in an order of which each beginning covers the grid evenly.

    A trial's number alone says which point it is, so that the grid is exact over any number of
    starts, and a study with fewer trials than points sees the grid thinned evenly; raising
    `n_trials` later goes on in the same order. The space's first point comes first, whether it
    lies on the grid or not. Branches take turns until they run out.
    """

    def __init__(self, space: Space) -> None:
        """Enumerate the grid.

        Args:
            space: What is searched; every range needs grid points.

        Raises:
            ConfigError: A range has none.
        """
        parts = space.flat
        bare = [name for part in parts for name, item in part.items() if not item.grid]
        if bare:
            names = ", ".join(dict.fromkeys(bare))
            raise ConfigError(f"space {space.name!r} has no grid points for {names}")
        self._space = space
        self._grids = [{name: item.grid for name, item in part.items()} for part in parts]
        cells = [
            [(branch, cell) for cell in even_order(tuple(map(len, grid.values())))]
            for branch, grid in enumerate(self._grids)
        ]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*cells))
        self._first = dict(space.first) if space.first is not None else None
        left_out = (None, self._cell(self._first))
        self._order = [cell for cell in turns if cell is not None and cell not in left_out]
        self.size = len(self._order) + (self._first is not None)

    def _cell(self, point: Params | None) -> tuple[int, tuple[int, ...]] | None:
        """Where a point lies on the grid, None if it does not."""
        for branch, grid in enumerate(self._grids):
            if point is not None and all(point.get(name) in grid[name] for name in grid):
                return branch, tuple(grid[name].index(point[name]) for name in grid)
        return None

    def _point(self, cell: tuple[int, tuple[int, ...]]) -> Params:
        branch, indices = cell
        grid = self._grids[branch].items()
        return {name: values[k] for (name, values), k in zip(grid, indices, strict=True)}

    def propose(self, trial: optuna.Trial, asked_for: Mapping[str, Value] | None = None) -> Params:
        """The point of a trial that was just asked for.

        Args:
            trial: Only its number counts.
            asked_for: Values that are settled already. Where they lead to another branch, what
                that lacks is drawn at random.

        Returns:
            The point.

        Raises:
            ConfigError: The grid has fewer points.
        """
        number = trial.number
        if number >= (self.size or 0):
            raise ConfigError(f"the grid has {self.size} points, there is none for trial {number}")
        if self._first is not None and number == 0:
            point = dict(self._first)
        else:
            point = self._point(self._order[number - (self._first is not None)])
            check_params(self._space, point)
        if asked_for:
            seed = derive_seed(0, number, SAMPLING_STREAM)
            trial.study.sampler = optuna.samplers.RandomSampler(seed=seed)
            return _draw(trial, self._space, {**point, **asked_for})
        return point


@functools.lru_cache(maxsize=8)
def even_order(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """All cells of a grid, in an order of which each beginning is spread evenly.

    Args:
        sizes: Points of each dimension.

    Returns:
        Indices of each cell, every cell once: the cells that the additive quasi-random sequence
        x_k = frac(1/2 + k (1/g, 1/g^2, ...)), g^(d + 1) = g + 1, falls into, in its order.

    Source: M. Roberts, "The unreasonable effectiveness of quasirandom sequences" (2018); for one
    dimension g is the golden ratio.
    """
    dimensions = len(sizes)
    total = math.prod(sizes)
    root = 1.5
    for _ in range(64):
        root = (1.0 + root) ** (1.0 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    draws = (0.5 + np.arange(GRID_DRAWS * total)[:, None] * steps) % 1.0
    cells = (draws * np.array(sizes)).astype(np.int64)
    flat = np.ravel_multi_index(tuple(cells.T), sizes)
    seen, first_at = np.unique(flat, return_index=True)
    missing = np.setdiff1d(np.arange(total), seen)
    order = np.concatenate([seen[np.argsort(first_at)], missing])
    return tuple(zip(*(axis.tolist() for axis in np.unravel_index(order, sizes)), strict=True))
