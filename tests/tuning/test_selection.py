"""Which trial wins: Pareto set, ties, speeds measured alone."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_study import TINY, small_config

from qm9flow.data.store import Dataset
from qm9flow.errors import StudyError
from qm9flow.tracking.runs import MODEL_FOLDER, fetch_artifact
from qm9flow.tracking.stores import connect
from qm9flow.tuning.records import TrialRecord
from qm9flow.tuning.selection import (
    choose,
    molecule_scores,
    pareto_front,
    select,
    standard_error,
)
from qm9flow.tuning.spaces import to_train_config


def trial(number: int, score: float, loss: float = 1.0, speed: float = 1.0, state="complete"):
    return TrialRecord(number, state, {}, score, train_loss=loss, molecules_per_second=speed)


FIGURES = st.tuples(*[st.integers(1, 4).map(float)] * 3)


@given(st.lists(FIGURES, min_size=1, max_size=25))
def test_the_front_holds_whom_nobody_beats(figures):
    records = [trial(number, *values) for number, values in enumerate(figures)]

    def beats(one, other):
        pairs = [(a, b) for a, b in zip(one[:2], other[:2], strict=True)] + [(-one[2], -other[2])]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    expected = {
        number
        for number, values in enumerate(figures)
        if not any(beats(other, values) for other in figures)
    }
    assert {item.number for item in pareto_front(records)} == expected


def test_only_completed_trials_with_all_figures_are_on_the_front():
    records = [
        trial(0, 0.5),
        trial(1, 0.1, state="pruned"),
        dataclasses.replace(trial(2, 0.2), train_loss=None),
    ]
    assert [item.number for item in pareto_front(records)] == [0]
    assert pareto_front(records[1:]) == ()


def test_ties_go_to_the_faster_one():
    records = [trial(0, 0.50, speed=10), trial(1, 0.505, speed=30), trial(2, 0.52, speed=99)]
    assert [item.number for item in choose(records, 0.01)] == [1, 0]
    assert [item.number for item in choose(records, 0.0)] == [0]
    with pytest.raises(StudyError, match="no trial of the study has completed"):
        choose([trial(0, 0.1, state="pruned")], 0.1)


def test_the_standard_error_is_that_of_a_mean():
    scores = np.random.default_rng(0).exponential(size=2000)
    expected = scores.std() / np.sqrt(len(scores))
    assert standard_error(scores) == pytest.approx(expected, rel=0.1)
    assert standard_error(scores) == standard_error(scores)


def test_molecules_contribute_the_score_of_the_study(undisturbed, dataset: Dataset):
    stores, result = undisturbed
    config = to_train_config(result.best.params, small_config(), result.best.number, TINY)
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_artifact(connect(stores), result.best.run_id, MODEL_FOLDER, Path(folder))
        weights = (path / "weights.safetensors").read_bytes()
    scores = molecule_scores(config, weights, dataset)
    assert scores.shape == (32,)
    assert scores.mean() == pytest.approx(result.best.score, rel=1e-5)

    found = select(
        result.trials,
        small_config(),
        TINY,
        dataset,
        lambda record: weights,
        seconds=0.05,
    )
    complete = [item for item in result.trials if item.state == "complete"]
    assert set(found.speeds) == {item.number for item in complete}
    assert found.candidate.number in found.tied
    assert found.tied[0] == result.best.number
    assert found.standard_error == standard_error(scores)
    assert found.candidate.molecules_per_second == found.speeds[found.candidate.number]
    assert result.best.number in {item.number for item in found.front}
