"""Options of a study that nobody named: what fits its number of trials and this machine.

Halving makes most trials short, so that a study costs about `COST_A_TRIAL` epochs of the space's
first network for each trial, shared out among those that run at a time. The largest training set
is taken with which that stays within `SEARCH_MINUTES`.
"""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qm9flow import config
from qm9flow.config import StudyConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import StudyError
from qm9flow.tracking.stores import resolve_stores
from qm9flow.training.events import EpochEnded
from qm9flow.training.fit import fit
from qm9flow.tuning.records import show_study
from qm9flow.tuning.spaces import get_space, to_train_config

FITTED = ("train_size", "final_minutes")
"""Options that are chosen here where nothing was said."""

TRAIN_SIZES = (1000, 2000, 4000, 8000)
SEARCH_MINUTES = 100.0
COST_A_TRIAL = 3.0
SECONDS_A_TRIAL = 0.6
"""Beside training: ask, tell, records, the start of a training."""

FINAL_SHARE = 0.25
"""Minutes of the final training, as a share of the search's."""
FINAL_MINUTES = (10.0, 30.0)
"""At least and at most."""

PROBE_MOLECULES = 1000


@dataclass(frozen=True)
class Fitted:
    """A study's options, and what they will take.

    Attributes:
        study: All options.
        search_minutes: About; None where it was not estimated, as the study was begun before.
    """

    study: StudyConfig
    search_minutes: float | None


def begun_before(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options under which a study of that name was begun.

    Args:
        given: What the user asked for.

    Returns:
        Those of `FITTED`; empty for a new study.

    Raises:
        StudyError: The storage cannot be read.
    """
    name = given.get("study_name")
    if name is None:
        return {}
    try:
        recorded = show_study(resolve_stores(given.get("storage")), name).config
    except StudyError:
        return {}
    return {option: getattr(recorded, option) for option in FITTED}


def fitted(
    given: Mapping[str, Any], before: Mapping[str, Any], dataset: Dataset, slots: int
) -> Fitted:
    """Complete a study's options.

    Args:
        given: What the user asked for.
        before: What the study was begun with.
        dataset: QM9.
        slots: Trials at a time.

    Returns:
        All options; those that were given stay as they are.

    Raises:
        ConfigError: An option is wrong.
    """
    study = config.from_dict(StudyConfig, {**before, **given})
    if before:
        return Fitted(study, None)
    rate = probe(study, dataset)
    if "train_size" not in given:
        fitting = [
            size
            for size in TRAIN_SIZES
            if minutes_of(study.n_trials, size, rate, slots) <= SEARCH_MINUTES
        ]
        size = max(fitting, default=TRAIN_SIZES[0])
        study = dataclasses.replace(study, train_size=size)
    size = study.train_size or len(dataset)
    minutes = minutes_of(study.n_trials, size, rate, slots)
    if "final_minutes" not in given:
        low, high = FINAL_MINUTES
        final = float(round(min(high, max(low, FINAL_SHARE * minutes))))
        study = dataclasses.replace(study, final_minutes=final)
    return Fitted(study, minutes)


def minutes_of(n_trials: int, train_size: int, rate: float, slots: int) -> float:
    """How long a search takes, about.

    Args:
        n_trials: Trials.
        train_size: Training molecules of each.
        rate: Molecules a second of the space's first network on one core, or one share of a GPU.
        slots: Trials at a time.

    Returns:
        Minutes.
    """
    seconds = COST_A_TRIAL * train_size / rate + SECONDS_A_TRIAL
    return n_trials * seconds / slots / 60.0


def probe(study: StudyConfig, dataset: Dataset) -> float:
    """Train the space's first network for a moment.

    Args:
        study: Preset, split and device.
        dataset: QM9.

    Returns:
        Molecules a second on one core, or alone on a GPU; the second epoch's.
    """
    space = get_space(study.preset)
    short = dataclasses.replace(
        study, train_size=PROBE_MOLECULES, val_size=PROBE_MOLECULES // 4, max_epochs=2
    )
    train = dataclasses.replace(to_train_config(space.first or {}, short, 0, space), threads=1)
    began = time.perf_counter()
    for event in fit(train, dataset):
        if isinstance(event, EpochEnded) and event.epoch == train.max_epochs:
            return event.metrics["train/molecules_per_second"]
    return PROBE_MOLECULES * train.max_epochs / (time.perf_counter() - began)
