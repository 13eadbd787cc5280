"""Metrics: closed forms, on real molecules."""

from dataclasses import replace

import numpy as np
import pytest

from qm9flow.config import TrainConfig
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.training.metrics import (
    all_targets,
    learned_scale,
    mean_absolute_errors,
    pooled_rmse,
    training_codec,
    training_sample,
    val_score,
    validation_metrics,
)

COLUMNS = [TARGETS.index(name) for name in LEARNED]


def test_the_sample_is_a_prefix_of_the_split(tiny: TrainConfig, dataset: Dataset) -> None:
    split = make_split("seed", len(dataset), 0)
    sample = training_sample(tiny, dataset)
    assert np.array_equal(sample.train, split.train[:192])
    assert np.array_equal(sample.validation, split.validation[:48])
    everything = training_sample(replace(tiny, train_size=None, val_size=None), dataset)
    assert (len(everything.train), len(everything.validation)) == (91_581, 5000)


@pytest.mark.parametrize("option", ["train_size", "val_size"])
def test_more_molecules_than_there_are_is_impossible(
    tiny: TrainConfig, dataset: Dataset, option: str
) -> None:
    with pytest.raises(ConfigError, match=option):
        training_sample(replace(tiny, **{option: 100_000}), dataset)


def test_the_codec_is_of_the_training_prefix_alone(tiny: TrainConfig, dataset: Dataset) -> None:
    codec = training_codec(tiny, dataset)
    train = training_sample(tiny, dataset).train
    counts, extents, truth = dataset.counts()[train], dataset.extents[train], dataset.truth()[train]
    encoded = codec.encode(counts, extents, truth[:, COLUMNS])
    is_centred = np.array(LEARNED) != "mu"
    assert encoded.mean(axis=0)[is_centred] == pytest.approx(np.zeros(9), abs=0.05)
    assert encoded.std(axis=0) == pytest.approx(np.ones(10), rel=1e-3)
    assert codec.to_dict() == training_codec(tiny, dataset).to_dict()
    assert codec.scale == pytest.approx(learned_scale(dataset, train))
    other = training_codec(replace(tiny, train_size=500), dataset)
    assert not np.array_equal(codec.scale, other.scale)


def test_the_raw_codec_changes_nothing(tiny: TrainConfig, dataset: Dataset) -> None:
    codec = training_codec(replace(tiny, targets="raw"), dataset)
    truth, counts, extents = dataset.truth()[:7], dataset.counts()[:7], dataset.extents[:7]
    assert codec.names == TARGETS
    assert np.array_equal(codec.encode(counts, extents, truth), truth)


def test_perfect_answers_have_no_error(tiny: TrainConfig, dataset: Dataset) -> None:
    codec = training_codec(tiny, dataset)
    places = training_sample(tiny, dataset).validation
    counts, rotational = dataset.counts()[places], dataset.rotational_ghz[places]
    extents = dataset.extents[places]
    encoded = codec.encode(counts, extents, dataset.truth()[places][:, COLUMNS])
    values = codec.decode(counts, extents, encoded)
    answers = all_targets(codec.names, values, counts, rotational)
    metrics = validation_metrics(answers, dataset.derived()[places], codec.scale)
    assert max(metrics.values()) < 1e-6
    listed = validation_metrics(answers, dataset.truth()[places], codec.scale)
    assert listed["val/gap/mae"] < 3e-3
    assert listed["val/score"] < 1e-9


def test_the_mean_scores_what_a_constant_scores(dataset: Dataset) -> None:
    """The training mean of what is left of the targets: the score is mean |x| / std of that."""
    config = TrainConfig(train_size=4000, val_size=1000)
    codec = training_codec(config, dataset)
    places = training_sample(config, dataset).validation
    counts, rotational = dataset.counts()[places], dataset.rotational_ghz[places]
    encoded = np.zeros((1000, 10))
    dipoles = dataset.truth()[training_sample(config, dataset).train, TARGETS.index("mu")]
    encoded[:, LEARNED.index("mu")] = dipoles.mean() / codec.scale[LEARNED.index("mu")]
    values = codec.decode(counts, dataset.extents[places], encoded)
    answers = all_targets(codec.names, values, counts, rotational)
    metrics = validation_metrics(answers, dataset.truth()[places], codec.scale)
    assert 0.6 < metrics["val/score"] < 0.85


def test_errors_have_their_closed_forms() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(11, 19))
    offset = np.arange(1.0, 20.0)
    predicted = truth + offset * np.where(generator.random((11, 19)) < 0.5, 1, -1)
    errors = mean_absolute_errors(predicted, truth)
    assert list(errors) == list(TARGETS)
    assert list(errors.values()) == pytest.approx(offset)
    scale = np.full(10, 2.0)
    assert val_score(errors, scale) == pytest.approx(np.mean(offset[COLUMNS]) / 2)
    assert pooled_rmse(predicted, truth) == pytest.approx(np.sqrt(np.mean(offset**2)))
    without = np.delete(offset, TARGETS.index("a"))
    got = pooled_rmse(predicted, truth, without=("a",))
    assert got == pytest.approx(np.sqrt(np.mean(without**2)))


def test_a_raw_network_answers_all_targets_itself(dataset: Dataset) -> None:
    values = np.arange(38.0).reshape(2, 19)
    answers = all_targets(TARGETS, values, dataset.counts()[:2], dataset.rotational_ghz[:2])
    assert np.array_equal(answers, values)
