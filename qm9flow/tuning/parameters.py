"""What only Optuna can say about a study's parameters: importances and scales."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from qm9flow.errors import StudyError
from qm9flow.tuning.history import find_study, open_storage

MIN_FOR_IMPORTANCES = 10
"""Completed trials below which importances are noise: PED-ANOVA compares the best tenth, two
trials at least, with the rest. A parameter that only some trials have is left out below it, too."""


@dataclass(frozen=True)
class Axis:
    """How a parameter is drawn.

    Attributes:
        name: The parameter.
        kind: Its scale.
        low: Smallest value that is searched; 0 for choices.
        high: Largest value.
        is_integer: Whether only whole numbers are searched.
        options: What a choice may be, as text.
    """

    name: str
    kind: Literal["linear", "log", "choice"]
    low: float
    high: float
    is_integer: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """Trials that have the same parameters.

    Attributes:
        label: What sets them apart, as `architecture painn`; empty if all trials are alike.
        members: Their places among all.
        axes: Their parameters, less the one that sets them apart; those that others share come
            last.
    """

    label: str
    members: tuple[int, ...]
    axes: tuple[Axis, ...]


def families(points: Sequence[Mapping[str, Any]], axes: Sequence[Axis]) -> tuple[Family, ...]:
    """Sort trials by the parameters that they have.

    Args:
        points: Parameters of each trial.
        axes: The parameters that count.

    Returns:
        The families, the one of the first trial first.
    """
    groups: dict[tuple[Axis, ...], list[int]] = {}
    for place, point in enumerate(points):
        held = tuple(axis for axis in axes if axis.name in point)
        groups.setdefault(held, []).append(place)
    shared = [axis for axis in axes if all(axis in held for held in groups)]
    condition = next((axis for axis in shared if _decides(axis, points, groups)), None)
    found = []
    for number, (held, members) in enumerate(groups.items()):
        own = [axis for axis in held if axis not in shared]
        common = [axis for axis in shared if axis is not condition]
        label = f"group {number + 1}" if len(groups) > 1 else ""
        if condition is not None:
            label = f"{condition.name} {points[members[0]][condition.name]}"
        found.append(Family(label, tuple(members), (*own, *common)))
    return tuple(found)


def _decides(
    axis: Axis, points: Sequence[Mapping[str, Any]], groups: Mapping[tuple[Axis, ...], list[int]]
) -> bool:
    """Whether a choice says which of several groups a trial is in."""
    if axis.kind != "choice" or len(groups) < 2:
        return False
    values = [{points[place][axis.name] for place in members} for members in groups.values()]
    return sum(map(len, values)) == len(groups) == len(set().union(*values))


@dataclass(frozen=True)
class Parameters:
    """What there is to say about a study's parameters.

    Attributes:
        axes: One a parameter, those that all trials have first; otherwise in the order of the
            space.
        importances: Share of each parameter, the largest first; empty if they say nothing.
        why_no_importances: Why they say nothing, empty if they do.
    """

    axes: tuple[Axis, ...]
    importances: dict[str, float]
    why_no_importances: str = ""


def study_parameters(url: str, study_name: str) -> Parameters:
    """Scales and importances of a study's parameters.

    Args:
        url: Optuna's storage.
        study_name: The study.

    Returns:
        Whatever can be said with the trials there are.

    Raises:
        StudyError: There is no such study, or the storage cannot be opened.
    """
    study = _copy(url, study_name)
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    axes = _axes(trials)
    reason = ""
    if not complete:
        reason = "no trial has completed"
    elif len(complete) < MIN_FOR_IMPORTANCES:
        reason = (
            f"fewer than {MIN_FOR_IMPORTANCES} completed trials say little; here {len(complete)}"
        )
    elif len({trial.value for trial in complete}) < 2:
        reason = "all completed trials have the same score"
    if reason:
        return Parameters(axes, {}, reason)
    names = [
        axis.name
        for axis in axes
        if sum(axis.name in trial.params for trial in complete) >= MIN_FOR_IMPORTANCES
    ]
    with warnings.catch_warnings():  # of parameters that all trials but one have
        warnings.simplefilter("ignore", UserWarning)
        return Parameters(axes, optuna.importance.get_param_importances(study, params=names))


def _copy(url: str, study_name: str) -> optuna.Study:
    """The study in memory: figures read all trials many times."""
    storage = open_storage(url)
    study_id = find_study(storage, study_name)
    if study_id is None:
        raise StudyError(f"there is no study {study_name!r} in {url}")
    trials = storage.get_all_trials(study_id, deepcopy=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="minimize", study_name=study_name)
        ended = [trial for trial in trials if trial.state.is_finished()]
        study.add_trials(sorted(ended, key=lambda trial: trial.number))
    return study


def _axes(trials: list[FrozenTrial]) -> tuple[Axis, ...]:
    found: dict[str, Any] = {}
    for trial in trials:
        found |= trial.distributions
    some = {name for name in found if any(name not in trial.distributions for trial in trials)}
    names = sorted(found, key=lambda name: name in some)
    return tuple(_axis(name, found[name]) for name in names)


def _axis(name: str, distribution: Any) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        options = tuple(str(choice) for choice in distribution.choices)
        return Axis(name, "choice", 0.0, len(options) - 1.0, True, options)
    kind: Literal["linear", "log"] = "log" if distribution.log else "linear"
    is_integer = isinstance(distribution, IntDistribution)
    return Axis(name, kind, float(distribution.low), float(distribution.high), is_integer)
