"""Which trial wins: by the group's three criteria, and by a score that is only so certain."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.torch import load

from qm9flow.config import StudyConfig, TrainConfig
from qm9flow.data.store import Dataset
from qm9flow.errors import StudyError
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training.device import pick_device
from qm9flow.training.metrics import learned_scale, training_codec, training_sample
from qm9flow.training.predict import predict
from qm9flow.training.speed import measure_speed
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.spaces import Space, to_train_config

TIMED_ALONE = 10
"""How many of the best trials are timed again with nothing else running."""

RESAMPLES = 1000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Final:
    """A trial's settings trained further, on all molecules.

    Attributes:
        number: Of the trial.
        minutes: That it had.
        score: Lowest `val/score`, None if it failed.
        epochs: Epochs done.
        reason: Why it failed, in words.
        run_id: MLflow's run; empty if it could not make one.
    """

    number: int
    minutes: float
    score: float | None
    epochs: int
    reason: str | None = None
    run_id: str = ""


@dataclass(frozen=True)
class Selection:
    """What a study says about its trials.

    Attributes:
        candidate: The trial to go on with.
        front: Trials that no other beats in all of validation score, training error and speed.
        standard_error: Of the best trial's score, over validation molecules.
        tied: Numbers of the trials within that error of the best score, best first.
        speeds: Molecules a second of the trials that were timed alone, by number.
        finals: How trials did that were trained further before the candidate was chosen, round by
            round; empty where their own scores chose it.
    """

    candidate: TrialRecord
    front: tuple[TrialRecord, ...]
    standard_error: float
    tied: tuple[int, ...]
    speeds: dict[int, float]
    finals: tuple[Final, ...] = ()


def best_final(finals: Iterable[Final]) -> Final | None:
    """The winner of the last round.

    Args:
        finals: Of all rounds.

    Returns:
        The lowest score of those with the longest training; None if none has a score.
    """
    scored = [item for item in finals if item.score is not None]
    return min(scored, key=lambda item: (-item.minutes, item.score), default=None)


def fastest_tied(selection: Selection) -> int:
    """The trial that the trials' own scores choose.

    Args:
        selection: With or without finals.

    Returns:
        The number of the fastest of the best trials that tie.
    """
    return max(selection.tied, key=lambda number: selection.speeds[number])


def by_score(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Completed trials, the lowest validation score first.

    Args:
        records: All trials.

    Returns:
        The completed ones in order; of equals, the earlier first.
    """
    complete = [item for item in records if item.state == "complete" and item.score is not None]
    return sorted(complete, key=lambda item: (item.score or 0.0, item.number))


def pareto_front(records: Iterable[TrialRecord]) -> tuple[TrialRecord, ...]:
    """Trials that no other beats by the group's three criteria.

    Args:
        records: All trials; those that did not complete or lack a figure are left out.

    Returns:
        Every trial for which no other has a validation score as low, a training loss as low and a
        speed as high, with one of them better; by validation score.
    """
    known = [
        item
        for item in by_score(records)
        if item.train_loss is not None and item.molecules_per_second is not None
    ]
    if not known:
        return ()
    points = np.array(
        [[item.score, item.train_loss, -(item.molecules_per_second or 0.0)] for item in known],
        dtype=np.float64,
    )
    as_good = (points[:, None] <= points[None]).all(axis=2)
    better = (points[:, None] < points[None]).any(axis=2)
    is_beaten = np.asarray((as_good & better).any(axis=0)).tolist()
    return tuple(item for item, beaten in zip(known, is_beaten, strict=True) if not beaten)


def choose(records: Iterable[TrialRecord], standard_error: float) -> tuple[TrialRecord, ...]:
    """The candidate and those it ties with.

    Args:
        records: All trials.
        standard_error: Of the best score.

    Returns:
        Trials whose score lies within the standard error of the lowest one, the fastest first: it
        is the candidate.

    Raises:
        StudyError: No trial has completed.
    """
    ranked = by_score(records)
    if not ranked:
        raise StudyError(
            "no trial of the study has completed, so there is nothing to choose from: "
            "run more trials (n_trials), or look at the reasons in `qm9flow study show`"
        )
    limit = (ranked[0].score or 0.0) + standard_error
    tied = [item for item in ranked if (item.score or 0.0) <= limit]
    return tuple(sorted(tied, key=lambda item: -(item.molecules_per_second or 0.0)))


def standard_error(scores: npt.NDArray[np.float64], seed: int = 0) -> float:
    """Standard error of a validation score, by bootstrap over molecules.

    Args:
        scores: (n_molecules,), what each molecule contributes; their mean is the score.
        seed: Of the resampling.

    Returns:
        The standard deviation of the mean over resamples.
    """
    generator = np.random.default_rng(seed)
    count = len(scores)
    means = [scores[generator.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    return float(np.std(means))


def molecule_scores(
    config: TrainConfig, weights: bytes, dataset: Dataset
) -> npt.NDArray[np.float64]:
    """What each validation molecule contributes to a network's `val/score`.

    Args:
        config: The training that made the network.
        weights: safetensors bytes of the network.
        dataset: All molecules.

    Returns:
        (n_validation,), mean over the learned targets of |error| / training standard deviation.
    """
    sample = training_sample(config, dataset)
    codec = training_codec(config, dataset)
    network = build(config.model, codec.names)
    network.load_state_dict(load(weights))
    model = PropertyModel(network, codec)
    predicted = predict(model, dataset, sample.validation, pick_device(config.device))
    columns = [codec.names.index(name) for name in LEARNED]
    truth = dataset.truth()[sample.validation][:, [TARGETS.index(name) for name in LEARNED]]
    scale = learned_scale(dataset, sample.train)
    return np.asarray((np.abs(predicted[:, columns] - truth) / scale).mean(axis=1))


def select(
    records: tuple[TrialRecord, ...],
    study: StudyConfig,
    space: Space,
    dataset: Dataset,
    load_weights: Callable[[TrialRecord], bytes],
    *,
    seconds: float = 2.0,
    progress: Progress | None = None,
) -> Selection:
    """Choose the trial to go on with. Only validation molecules are looked at.

    Args:
        records: All trials of the study.
        study: Its options.
        space: What was searched.
        dataset: All molecules.
        load_weights: Gives the network that a trial kept.
        seconds: How long each of the best is timed.
        progress: Told how many have been timed.

    Returns:
        The candidate and how it was found.

    Raises:
        StudyError: No trial has completed.
        TrainingError: One of the best cannot be timed.
    """
    ranked = by_score(records)
    best = choose(records, 0.0)[0]
    error = standard_error(
        molecule_scores(_training(best, study, space), load_weights(best), dataset)
    )
    speeds: dict[int, float] = {}
    for done, record in enumerate(ranked[:TIMED_ALONE]):
        speeds[record.number] = measure_speed(_training(record, study, space), dataset, seconds)
        if progress is not None:
            progress("timing the best alone", done + 1, min(TIMED_ALONE, len(ranked)))
    timed = with_speeds(records, speeds)
    tied = [item for item in choose(timed, error) if item.number in speeds]
    return Selection(
        candidate=tied[0],
        front=pareto_front(timed),
        standard_error=error,
        tied=tuple(item.number for item in by_score(tied)),
        speeds=speeds,
    )


def with_speeds(
    records: Iterable[TrialRecord], speeds: Mapping[int, float]
) -> tuple[TrialRecord, ...]:
    """Trials with the speeds that were measured alone.

    Args:
        records: Trials.
        speeds: Molecules a second, by number.

    Returns:
        The trials, in order.
    """
    return tuple(
        dataclasses.replace(item, molecules_per_second=speeds[item.number])
        if item.number in speeds
        else item
        for item in records
    )


def _training(record: TrialRecord, study: StudyConfig, space: Space) -> TrainConfig:
    return to_train_config(record.params, study, record.number, space)
