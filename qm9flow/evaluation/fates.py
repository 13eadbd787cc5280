"""What became of a study's trials."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from qm9flow.evaluation.drawing import AMBER, BLACK, BLUE, PINK
from qm9flow.tuning.records import TrialRecord

Fate = Literal["complete", "halving", "gradients", "failed"]

FATES: dict[Fate, str] = {
    "complete": "completed",
    "halving": "behind at a rung",
    "gradients": "stopped by its gradients",
    "failed": "crash or lack of memory",
}
"""What can become of a trial, in words, in the order of figures."""

COLOURS: dict[Fate, str] = {
    "complete": BLUE,
    "halving": AMBER,
    "gradients": PINK,
    "failed": BLACK,
}

HEALTHY, UNKNOWN = "healthy", "unknown"

_UNHEALTHY = ("vanishing", "exploding", "dead", "dead_relu")
_WORDS = {"dead_relu": "dead ReLU", "out_of_memory": "out of memory"}


def fate(trial: TrialRecord) -> Fate:
    """What became of a trial that has ended.

    Args:
        trial: The trial.

    Returns:
        One of `FATES`.
    """
    if trial.state == "complete":
        return "complete"
    if trial.state == "failed":
        return "failed"
    return "halving" if trial.reason in ("halving", None) else "gradients"


def verdict_of(trial: TrialRecord) -> str:
    """What a trial's gradients said.

    Args:
        trial: The trial.

    Returns:
        Why they stopped it, else the verdict at its end; `unknown` if there is none.
    """
    if trial.reason in _UNHEALTHY:
        return in_words(trial.reason)
    return in_words(trial.verdict or UNKNOWN)


def is_unhealthy(trial: TrialRecord) -> bool:
    """Whether a trial's gradients failed.

    Args:
        trial: The trial.

    Returns:
        Whether its verdict is known and not `healthy`.
    """
    return verdict_of(trial) not in (HEALTHY, UNKNOWN)


def in_words(reason: str | None) -> str:
    """A reason or verdict as people write it.

    Args:
        reason: A word of `TrialRecord`.

    Returns:
        The words.
    """
    return _WORDS.get(reason or "", reason or UNKNOWN)


def of_fate(trials: Sequence[TrialRecord], which: Fate) -> list[TrialRecord]:
    """The trials that ended in one way.

    Args:
        trials: All trials.
        which: One of `FATES`.

    Returns:
        Those that have ended so, in order.
    """
    return [trial for trial in trials if trial.has_ended and fate(trial) == which]


def scored(trials: Sequence[TrialRecord], which: Fate | None = None) -> list[TrialRecord]:
    """Trials that can be drawn by their score.

    Args:
        trials: All trials.
        which: One of `FATES`; None means all that have ended.

    Returns:
        Those with a finite score, in order.
    """
    ended = [trial for trial in trials if trial.has_ended and which in (None, fate(trial))]
    return [trial for trial in ended if trial.score is not None and math.isfinite(trial.score)]


def scores(trials: Sequence[TrialRecord]) -> list[float]:
    """Scores of trials that have one.

    Args:
        trials: From `scored`.

    Returns:
        Their scores.
    """
    return [float(trial.score or 0.0) for trial in trials]


def with_criteria(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that can be judged by the group's three criteria.

    Args:
        trials: All trials.

    Returns:
        Completed ones with a score, a training loss and a speed, in order.
    """
    return [
        trial
        for trial in scored(trials, "complete")
        if math.isfinite(trial.train_loss or math.nan) and trial.molecules_per_second
    ]


def by_rung(trials: Sequence[TrialRecord]) -> Mapping[int, int]:
    """Where trials were behind.

    Args:
        trials: All trials.

    Returns:
        Trials that were stopped at a rung, by its epoch, the first rung first.
    """
    return dict(sorted(Counter(trial.epochs for trial in of_fate(trials, "halving")).items()))


def by_reason(trials: Sequence[TrialRecord], which: Fate) -> Mapping[str, int]:
    """Why trials ended in one way.

    Args:
        trials: All trials.
        which: One of `FATES`.

    Returns:
        How many for each reason in words, the most frequent first.
    """
    return dict(Counter(in_words(trial.reason) for trial in of_fate(trials, which)).most_common())


def count_endings(trials: Sequence[TrialRecord]) -> dict[tuple[Fate, str], int]:
    """Trials by how they ended, in words with verdict or reason.

    Args:
        trials: All trials.

    Returns:
        Counts in the order of `FATES`; the most frequent first.
    """
    endings: Counter[tuple[Fate, str]] = Counter(
        (fate(trial), _ending(trial)) for trial in trials if trial.has_ended
    )
    order = list(FATES)
    return dict(sorted(endings.items(), key=lambda item: (order.index(item[0][0]), -item[1])))


def _ending(trial: TrialRecord) -> str:
    if trial.state == "complete":
        return f"completed, gradients {verdict_of(trial)}"
    if fate(trial) == "halving":
        return f"behind at rung {trial.epochs}"
    if fate(trial) == "gradients":
        return f"stopped, gradients {in_words(trial.reason)}"
    return f"failed, {in_words(trial.reason)}"
