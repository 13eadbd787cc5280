"""Which trials deserve a second look: seconds of training say little about minutes of it."""

import math
from collections.abc import Mapping, Sequence
from typing import get_args

from qm9flow.training.events import StopReason
from qm9flow.tuning.ranges import Choice, IntRange, Parameter, Value
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.spaces import ARCHITECTURE, Space

MOST_VALUES = 5
"""A whole number or choice with no more values is part of a network's structure: layers, say."""

NEAR = 0.1
"""Two points whose parameters all differ by less, as parts of their ranges, are about the same."""

GRADIENTS: tuple[str, ...] = get_args(StopReason)

ROUNDS = ((1.0, 1 / 15), (1 / 4, 1 / 5))
"""Of each round: the share of the finalists that take part, and the minutes of each, as a share of
the final training's."""

LEAST_MINUTES = 0.01


def rounds(finalists: int, final_minutes: float) -> tuple[tuple[int, float], ...]:
    """Successive halving among the finalists.

    Args:
        finalists: How many.
        final_minutes: Of the final training.

    Returns:
        Of each round, how many take part and the minutes of each, longer from round to round;
        none for fewer than two.
    """
    if finalists < 2:
        return ()
    found: list[tuple[int, float]] = []
    for number, (share, part) in enumerate(ROUNDS, start=1):
        minutes = max(round(part * final_minutes, 2), number * LEAST_MINUTES)
        found.append((max(2, round(share * finalists)), minutes))
    return tuple(found)


def pick(records: Sequence[TrialRecord], space: Space, count: int) -> tuple[TrialRecord, ...]:
    """The trials that are trained further.

    Short trials favour small, fast networks, and a search soon tries little else. So up to half
    of the places go to the space's first point and to the best trial of each structure (of each
    architecture, or of each number of layers), whatever their score. The others go to the best
    trials that are not about the same.

    Args:
        records: All trials.
        space: What was searched.
        count: Finalists, at most.

    Returns:
        Trials with a score, in the order in which they were picked. The best of all is among them.
    """
    ranked = sorted(filter(_is_sound, records), key=_rank)
    first = [item for item in ranked if space.first is not None and item.number == 0]
    chosen = ranked[:1]
    others = [item for item in _best_of_structures(ranked, space) if item not in (*chosen, *first)]
    chosen += [item for item in (*first, *others) if item not in chosen][: count // 2]
    for item in ranked:
        if len(chosen) >= count:
            break
        if not any(_is_near(item, other, space) for other in chosen):
            chosen.append(item)
    return tuple(chosen[:count])


def _is_sound(record: TrialRecord) -> bool:
    has_score = record.score is not None and math.isfinite(record.score)
    return has_score and record.state in ("complete", "pruned") and record.reason not in GRADIENTS


def _rank(record: TrialRecord) -> tuple[bool, int, float, int]:
    """Complete ones by score, then the others by how far they came, and by score."""
    is_pruned = record.state == "pruned"
    return is_pruned, -record.epochs if is_pruned else 0, record.score or 0.0, record.number


def _best_of_structures(ranked: Sequence[TrialRecord], space: Space) -> list[TrialRecord]:
    """The best trial of each architecture; in a space of one, of each number of layers."""
    best: dict[tuple[str, Value], TrialRecord] = {}
    for item in ranked:
        for name, parameter in _parameters(space, item.params).items():
            if name == ARCHITECTURE or (not space.branches and _is_structure(parameter)):
                best.setdefault((name, item.params[name]), item)
    return list({item.number: item for item in best.values()}.values())


def _parameters(space: Space, params: Mapping[str, Value]) -> dict[str, Parameter]:
    found = dict(space.parameters_of(params))
    if space.branches:
        found[ARCHITECTURE] = space.architectures
    return found


def _is_structure(parameter: Parameter) -> bool:
    if isinstance(parameter, IntRange):
        return parameter.high - parameter.low < MOST_VALUES
    return isinstance(parameter, Choice) and len(parameter.options) <= MOST_VALUES


def _is_near(one: TrialRecord, other: TrialRecord, space: Space) -> bool:
    parameters = _parameters(space, one.params)
    if set(parameters) != set(_parameters(space, other.params)):
        return False
    return all(
        _distance(parameter, one.params[name], other.params[name]) < NEAR
        for name, parameter in parameters.items()
    )


def _distance(parameter: Parameter, one: Value, other: Value) -> float:
    """Of two values, as a part of their range; 1 for two choices."""
    if isinstance(parameter, Choice):
        return float(one != other)
    values = float(one), float(other), float(parameter.low), float(parameter.high)
    a, b, low, high = map(math.log, values) if parameter.log else values
    return abs(a - b) / (high - low)
