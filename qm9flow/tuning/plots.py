"""What only Optuna can say about a study's parameters: importances, scales, its own figures."""

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from qm9flow.errors import StudyError
from qm9flow.tuning.history import find_study, open_storage

MIN_FOR_IMPORTANCES = 10
"""Completed trials below which importances are noise: PED-ANOVA compares the best tenth, two
trials at least, with the rest."""

TARGET = "val/score"


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
class StudyPicture:
    """What there is to draw.

    Attributes:
        axes: One a parameter, in the order of the space.
        importances: Share of each parameter, the largest first; empty with too few trials.
        figures: Optuna's interactive figures by name.
        skipped: What could not be made, and why.
    """

    axes: tuple[Axis, ...]
    importances: dict[str, float]
    figures: dict[str, Any]
    skipped: dict[str, str]


def picture(url: str, study_name: str) -> StudyPicture:
    """Prepare a study's figures.

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
    figures: dict[str, Any] = {}
    importances: dict[str, float] = {}
    skipped: dict[str, str] = {}
    if not complete:
        reason = "no trial has completed"
        skipped = dict.fromkeys(("history", "importances", "parallel", "slice"), reason)
        return StudyPicture(axes, importances, figures, skipped)
    show = optuna.visualization
    figures["history"] = show.plot_optimization_history(study, target_name=TARGET)
    figures["slice"] = show.plot_slice(study, target_name=TARGET)
    if len(complete) < 2:
        skipped["parallel"] = "only one trial has completed"
    else:
        figures["parallel"] = show.plot_parallel_coordinate(study, target_name=TARGET)
    if len(complete) < MIN_FOR_IMPORTANCES:
        skipped["importances"] = (
            f"{len(complete)} completed trials; fewer than {MIN_FOR_IMPORTANCES} say little"
        )
    elif len({trial.value for trial in complete}) < 2:
        skipped["importances"] = "all completed trials have the same score"
    else:
        importances = optuna.importance.get_param_importances(study)
        figures["importances"] = show.plot_param_importances(study, target_name=TARGET)
    return StudyPicture(axes, importances, figures, skipped)


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
    return tuple(_axis(name, distribution) for name, distribution in found.items())


def _axis(name: str, distribution: Any) -> Axis:
    if isinstance(distribution, CategoricalDistribution):
        options = tuple(str(choice) for choice in distribution.choices)
        return Axis(name, "choice", 0.0, len(options) - 1.0, True, options)
    kind: Literal["linear", "log"] = "log" if distribution.log else "linear"
    is_integer = isinstance(distribution, IntDistribution)
    return Axis(name, kind, float(distribution.low), float(distribution.high), is_integer)
