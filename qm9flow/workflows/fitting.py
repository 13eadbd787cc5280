"""Options of a study that nobody named: what fits its number of trials and this machine.

The largest training set is taken with which the search stays within `SEARCH_MINUTES`, by the speed
that the space's first network has here. How many epochs a trial has until it is stopped, and how
much slower than the first network the networks are that a search comes to like, was measured.
"""

import dataclasses
import time
from collections.abc import Collection
from dataclasses import dataclass

from qm9flow.config import StudyConfig
from qm9flow.cores import usable_cores
from qm9flow.data.store import Dataset
from qm9flow.errors import StudyError
from qm9flow.tracking.stores import Stores
from qm9flow.training.events import EpochEnded
from qm9flow.training.fit import fit
from qm9flow.training.schedule import GROWTH
from qm9flow.tuning import pruning
from qm9flow.tuning.executors import Placement
from qm9flow.tuning.records import show_study
from qm9flow.tuning.spaces import get_space, to_train_config

FITTED = ("train_size", "trial_minutes", "finalists", "final_minutes")
"""Options that are chosen here where nothing was said."""

TRAIN_SIZES = (1000, 1500, 2000, 3000, 4000, 6000, 8000)
SEARCH_MINUTES = 80.0
"""With finals and final training two hours, and room for a machine that is busy now and then."""

HALVED = 1.2
"""Work of a trial on average, relative to what rungs that let through a third each would leave:
trials are not stopped before others have come as far."""

RELATIVE_COST = {"seed": 0.36, "modern": 1.5}
"""Seconds for a molecule in the networks of a search, relative to the first one's of its preset:
that is one of the largest in `seed`, and the fastest for its size in `modern`."""

VALIDATION_SHARE = 1 / 3
"""Time of a prediction relative to that of a training step."""

SECONDS_A_TRIAL = 0.25
"""Beside training: ask, tell, records, the start of a training."""

LONGEST_TRIAL = 3.0
"""Time limit of a trial, relative to the mean. Epochs of a few thousand molecules favour batches of
two to eight, which take ten times as long for each molecule as batches of a hundred; under an equal
limit a search finds what is best for its time, as the final training has a limit, too."""
TRIAL_MINUTES_STEP = 0.05
LEAST_TRIAL_MINUTES = 0.1

FINAL_SHARE = 0.3
"""Minutes of the final training, as a share of the search's."""
FINAL_MINUTES = (10.0, 30.0)
"""At least and at most."""

LEAST_TRIALS = 200
"""Of a study that has finals."""
TRIALS_A_FINALIST = 50
MOST_FINALISTS = 16

PROBE_MOLECULES = 1000
PROBE_EPOCHS = 4


@dataclass(frozen=True)
class Fitted:
    """A study's options, and what they will take.

    Attributes:
        study: All options.
        chosen: Those that were chosen here.
        search_minutes: About; None where it was not estimated: the study was begun before, or
            nobody knows yet how many trials its cluster holds.
    """

    study: StudyConfig
    chosen: tuple[str, ...] = ()
    search_minutes: float | None = None


def fitted(
    study: StudyConfig,
    unsaid: Collection[str],
    stores: Stores,
    dataset: Dataset,
    placement: Placement | None,
) -> Fitted:
    """Complete a study's options.

    Args:
        study: What the user asked for, and defaults.
        unsaid: Options of `FITTED` that are only defaults in it.
        stores: Where an earlier start would be on record: its options stay.
        dataset: QM9.
        placement: Where trials run.

    Returns:
        All options; those that were said stay as they are.

    Raises:
        ConfigError: The space is unknown.
    """
    before = _begun_before(study, stores)
    if before is not None:
        changes = {name: getattr(before, name) for name in unsaid}
        return Fitted(dataclasses.replace(study, **changes))
    if "finalists" in unsaid:
        many = min(MOST_FINALISTS, study.n_trials // TRIALS_A_FINALIST)
        many = many if study.n_trials >= LEAST_TRIALS else 0
        study = dataclasses.replace(study, finalists=many)
    if placement is not None and placement.slots is None:
        return Fitted(study, tuple(name for name in ("finalists",) if name in unsaid))
    rate_of_one = probe(study, dataset)
    rate = _side_by_side(placement) * rate_of_one
    if "train_size" in unsaid:
        study = dataclasses.replace(study, train_size=_train_size(study, rate))
    minutes = _minutes(study, study.train_size or len(dataset), rate)
    if "trial_minutes" in unsaid:
        seconds = LONGEST_TRIAL * _seconds(study, study.train_size or len(dataset), rate_of_one)
        steps = round(seconds / 60.0 / TRIAL_MINUTES_STEP)
        limit = max(LEAST_TRIAL_MINUTES, round(steps * TRIAL_MINUTES_STEP, 2))
        study = dataclasses.replace(study, trial_minutes=limit)
    if "final_minutes" in unsaid:
        low, high = FINAL_MINUTES
        final = float(round(min(high, max(low, FINAL_SHARE * minutes))))
        study = dataclasses.replace(study, final_minutes=final)
    return Fitted(study, tuple(name for name in FITTED if name in unsaid), minutes)


def _begun_before(study: StudyConfig, stores: Stores) -> StudyConfig | None:
    if study.study_name is None:
        return None
    try:
        return show_study(stores, study.study_name).config
    except StudyError:
        return None  # it is new, or the storage cannot be read, which the study will say


def _side_by_side(placement: Placement | None) -> float:
    """How many trainings go on at full speed; that sharing a GPU brings more is left out."""
    if placement is None:
        return 1.0
    slots = float(placement.slots or 1)
    return slots * placement.gpus if placement.gpus else min(slots, float(usable_cores()))


def _train_size(study: StudyConfig, rate: float) -> int:
    fitting = [size for size in TRAIN_SIZES if _minutes(study, size, rate) <= SEARCH_MINUTES]
    return max(fitting, default=TRAIN_SIZES[0])


def _minutes(study: StudyConfig, train_size: int, rate: float) -> float:
    """Of a search, about; `rate` is that of all trials that run at a time, molecules/s."""
    return study.n_trials * (_seconds(study, train_size, rate) + SECONDS_A_TRIAL) / 60.0


def _seconds(study: StudyConfig, train_size: int, rate: float) -> float:
    """Of training in a trial, on average."""
    validated = VALIDATION_SHARE * (study.val_size or 0)
    cost = RELATIVE_COST.get(study.preset, 1.0)
    return cost * mean_molecules(study, train_size, validated) / rate


def mean_molecules(study: StudyConfig, train_size: int, validated: float) -> float:
    """Molecules that a trial sees until it ends or is stopped.

    Args:
        study: Epochs and halving.
        train_size: Training molecules, when all are seen.
        validated: Validation molecules of an epoch, as so many training molecules.

    Returns:
        The mean over many trials, about.
    """
    rungs = pruning.rungs_of(study)
    if not rungs:
        return study.max_epochs * (train_size + validated)
    ends = (*rungs, study.max_epochs)
    seen = 0.0
    for passed, (start, end) in enumerate(zip((0, *ends), ends, strict=False)):
        ahead = len(rungs) - passed if study.halving == "train_size" else 0
        epoch = train_size / GROWTH**ahead + validated
        seen += (end - start) * epoch / pruning.REDUCTION**passed
    return HALVED * seen


def probe(study: StudyConfig, dataset: Dataset) -> float:
    """Train the space's first network for a moment.

    Args:
        study: Preset, split and device.
        dataset: QM9.

    Returns:
        Molecules a second on one core, or alone on a GPU: those of the fastest epoch, the first
        one left out, as a machine is slowed down and never sped up by what else it does.
    """
    space = get_space(study.preset)
    short = dataclasses.replace(
        study,
        train_size=PROBE_MOLECULES,
        val_size=PROBE_MOLECULES // 4,
        max_epochs=PROBE_EPOCHS,
        trial_minutes=None,
    )
    train = dataclasses.replace(to_train_config(space.first or {}, short, 0, space), threads=1)
    began = time.perf_counter()
    rates = [
        event.metrics["train/molecules_per_second"]
        for event in fit(train, dataset)
        if isinstance(event, EpochEnded)
    ]
    whole = PROBE_MOLECULES * PROBE_EPOCHS / (time.perf_counter() - began)
    return max(rates[1:], default=whole)
