"""Successive halving that stops trials where they are, at stated epochs (rungs)."""

import math
from collections.abc import Iterable, Mapping

from qm9flow.config import StudyConfig

REDUCTION = 3
"""Of the trials that reach a rung, one in so many goes on."""


def rungs(max_epochs: int, reduction: int = REDUCTION) -> tuple[int, ...]:
    """The epochs after which trials are compared.

    Args:
        max_epochs: Epochs of a trial, at most.
        reduction: Ratio of two neighbouring rungs.

    Returns:
        max_epochs / reduction^k, rounded down, rising, without `max_epochs` itself: 1 and 3 for
        nine epochs. Whoever passes the last rung runs to the end.
    """
    found: list[int] = []
    epochs = max_epochs // reduction
    while epochs >= 1:
        found.append(epochs)
        epochs //= reduction
    return tuple(reversed(found))


def rungs_of(study: StudyConfig) -> tuple[int, ...]:
    """The rungs of a study.

    Args:
        study: Its options.

    Returns:
        As `rungs`; none where halving is off.
    """
    return () if study.halving == "off" else rungs(study.max_epochs)


def growth_of(study: StudyConfig) -> int:
    """How often the training set of a study's trials triples on the way.

    Args:
        study: Its options.

    Returns:
        Once a rung where the size grows, else 0.
    """
    return len(rungs_of(study)) if study.halving == "train_size" else 0


def goes_on(score: float, others: Iterable[float], reduction: int = REDUCTION) -> bool:
    """Whether a trial at a rung goes on.

    Args:
        score: Its score there; lower is better.
        others: Scores there of all other trials that have reached the rung, whatever became of
            them; NaN counts as the worst.
        reduction: One in so many goes on.

    Returns:
        True if fewer than n / reduction trials are better (rounded down, at least one goes on),
        where n counts this one too. So the first to come always goes on.

    Source: L. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020
    (arXiv:1810.05934), Algorithm 2 in its stopping form: a trial that is not promoted at once is
    stopped, not paused.
    """
    if not math.isfinite(score):
        return False
    scores = list(others)
    better = sum(other < score for other in scores)
    return better < max(1, (len(scores) + 1) // reduction)


def stops(
    number: int,
    epoch: int,
    scores: Mapping[int, Mapping[int, float]],
    at: tuple[int, ...],
    reduction: int = REDUCTION,
) -> bool:
    """Whether a trial is stopped after an epoch.

    Args:
        number: Of the trial.
        epoch: The epoch that has just ended.
        scores: Of all trials so far: number, then epoch, to score.
        at: The rungs.
        reduction: One in so many goes on.

    Returns:
        Whether the epoch is a rung that the trial does not pass. Only told scores count, so that
        a study read back from its store decides as the one that wrote it.
    """
    if epoch not in at:
        return False
    others = [told[epoch] for other, told in scores.items() if other != number and epoch in told]
    return not goes_on(scores[number][epoch], others, reduction)
