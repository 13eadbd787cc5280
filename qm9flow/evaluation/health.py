"""Which hyperparameters make gradients fail: shares of trials by verdict and parameter."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qm9flow.evaluation.drawing import plain
from qm9flow.evaluation.fates import UNKNOWN, is_unhealthy, verdict_of
from qm9flow.tuning.parameters import Axis
from qm9flow.tuning.records import TrialRecord

MAX_PARAMETERS = 6
"""Parameters that are looked at: the group asked for depth, width, rate and batch size."""

ENOUGH = 5
"""Trials below which a share says little."""

_BINS = 6
_MANY_VALUES = 8
"""Whole numbers that each have a column of their own, at most."""


@dataclass(frozen=True)
class Column:
    """Trials with like values of a parameter.

    Attributes:
        label: The values.
        trials: How many have them.
        counts: How many of these got each verdict.
    """

    label: str
    trials: int
    counts: Counter[str]

    def share(self, verdict: str) -> float:
        """Share of a verdict, NaN without trials."""
        return self.counts[verdict] / self.trials if self.trials else math.nan


@dataclass(frozen=True)
class HealthMap:
    """Verdicts over one parameter.

    Attributes:
        name: The parameter.
        columns: Its values, rising.
    """

    name: str
    columns: tuple[Column, ...]


def failing_verdicts(trials: Sequence[TrialRecord]) -> list[str]:
    """The ways in which gradients failed.

    Args:
        trials: All trials.

    Returns:
        Verdicts, the most frequent first.
    """
    return [
        name for name, _ in Counter(map(verdict_of, filter(is_unhealthy, trials))).most_common()
    ]


def health_maps(trials: Sequence[TrialRecord], axes: Sequence[Axis]) -> list[HealthMap]:
    """Verdicts over each parameter.

    Args:
        trials: All trials; those without a verdict do not count.
        axes: The parameters; those that most trials have are looked at.

    Returns:
        One map a parameter.
    """
    judged = [trial for trial in trials if trial.has_ended and verdict_of(trial) != UNKNOWN]
    held = {axis.name: [t for t in judged if axis.name in t.params] for axis in axes}
    common = sorted(axes, key=lambda axis: -len(held[axis.name]))[:MAX_PARAMETERS]
    return [HealthMap(axis.name, _columns(axis, held[axis.name])) for axis in common]


def most_affected(maps: Sequence[HealthMap], verdict: str) -> tuple[str, Column] | None:
    """Where a verdict is most frequent.

    Args:
        maps: From `health_maps`.
        verdict: One of `failing_verdicts`.

    Returns:
        The parameter and its column, among those with enough trials; None if there is none.
    """
    found = [
        (item.name, column)
        for item in maps
        for column in item.columns
        if column.trials >= ENOUGH and column.counts[verdict]
    ]
    return max(found, key=lambda pair: pair[1].share(verdict), default=None)


def largest_share(maps: Sequence[HealthMap], verdicts: Sequence[str]) -> float:
    """The end of a scale of shares.

    Args:
        maps: From `health_maps`.
        verdicts: From `failing_verdicts`.

    Returns:
        The largest share in a column with enough trials; 1 if there is none above 0.
    """
    shares = [
        column.share(verdict)
        for item in maps
        for column in item.columns
        for verdict in verdicts
        if column.trials >= ENOUGH
    ]
    return max(shares, default=1.0) or 1.0


def _columns(axis: Axis, trials: Sequence[TrialRecord]) -> tuple[Column, ...]:
    labels, place = _bins(axis)
    groups: list[list[TrialRecord]] = [[] for _ in labels]
    for trial in trials:
        groups[place(trial.params[axis.name])].append(trial)
    return tuple(
        Column(label, len(group), Counter(map(verdict_of, group)))
        for label, group in zip(labels, groups, strict=True)
    )


def _bins(axis: Axis) -> tuple[list[str], Callable[[Any], int]]:
    """Labels of the columns, and which column a value belongs to."""
    if axis.kind == "choice":
        options = list(axis.options)
        return options, lambda value: options.index(str(value)) if str(value) in options else 0
    if axis.is_integer and axis.high - axis.low < _MANY_VALUES:
        low = int(axis.low)
        return [str(value) for value in range(low, int(axis.high) + 1)], lambda v: int(v) - low
    edges = _log_edges(axis) if axis.kind == "log" else np.linspace(axis.low, axis.high, _BINS + 1)
    inner = np.asarray(edges)[1:-1]

    def place(value: Any) -> int:
        return int(np.digitize(float(value), inner))

    if axis.is_integer:
        starts = [math.ceil(edge) for edge in edges[:-1]]
        ends = [*(start - 1 for start in starts[1:]), int(axis.high)]
        return [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)], place
    return [f"{_short(a)} to {_short(b)}" for a, b in itertools.pairwise(edges)], place


def _short(value: float) -> str:
    """Two digits at most: the ends of a range stand in a narrow column."""
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return plain(float(f"{value:.2g}"))


def _log_edges(axis: Axis) -> list[float]:
    """Powers of two of whole numbers, of ten otherwise: halves of them where they are too few."""
    base = 2.0 if axis.is_integer else 10.0
    steps = math.log(axis.high / axis.low, base)
    size = next(size for size in (0.5, 1, 2, 3, 4, 6, 8, 1000) if steps / size <= _BINS + 2)
    size = max(size, 1) if axis.is_integer else size
    count = max(1, round(steps / size))
    inner = [axis.low * base ** (size * k) for k in range(1, count)]
    return [axis.low, *inner, axis.high]
