"""A trial trained on all molecules: what that training is, what it is called, on how many threads.

A study's last training is one; so are those that decide which trial gets it.
"""

import dataclasses
import logging

from qm9flow.config import CHOICE_MOLECULES, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import TrainingError
from qm9flow.training.device import pick_device
from qm9flow.training.speed import fastest_threads
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.spaces import to_train_config
from qm9flow.tuning.study import OpenStudy

MAX_EPOCHS = 300
"""Passes of a final training, at most; its minutes end most of them long before."""

TIMED_FROM_MINUTES = 1.0
"""Shorter trainings are not worth finding out how they are fastest."""

log = logging.getLogger(__name__)


def final_config(opened: OpenStudy, candidate: TrialRecord, minutes: float) -> TrainConfig:
    """A trial's training on all molecules, with an annealed rate.

    Gradients do not end it. It is one training, whose time is granted; its best epoch is what is
    released, whatever comes after; and a verdict that was wrong would cost the whole study.

    Args:
        opened: The study.
        candidate: The trial.
        minutes: Of training, at most.

    Returns:
        The training's configuration.
    """
    trial = to_train_config(candidate.params, opened.config, candidate.number, opened.space)
    return dataclasses.replace(
        trial,
        train_size=None,
        val_size=CHOICE_MOLECULES,
        schedule="cosine",
        max_epochs=MAX_EPOCHS,
        growth=0,
        max_minutes=minutes,
        gradient_stop="observe",
    )


def final_name(number: int, minutes: float) -> str:
    """What such a training is called: the same trial with another budget is another one.

    Args:
        number: Of the trial.
        minutes: Of training.

    Returns:
        A name without dots, fit for a folder.
    """
    return f"trial-{number:05d}-{f'{minutes:g}'.replace('.', '_')}-minutes"


def on_fastest_threads(train: TrainConfig, dataset: Dataset) -> TrainConfig:
    """A training on as many threads as make it fastest on this machine at this moment.

    Args:
        train: From `final_config`; a short one, or one on a GPU, is left as it is, and so is one
            that cannot be timed: that is no verdict on the training itself.
        dataset: QM9.

    Returns:
        The same training with `threads`.
    """
    is_short = train.max_minutes is None or train.max_minutes < TIMED_FROM_MINUTES
    if is_short or pick_device(train.device).type != "cpu":
        return train
    try:
        return dataclasses.replace(train, threads=fastest_threads(train, dataset))
    except TrainingError as error:
        log.warning("torch chooses the number of threads: %s", error)
        return train
