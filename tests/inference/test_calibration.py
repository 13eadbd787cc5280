"""Intervals that hold as often as they say; files that say what is wrong with them."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.errors import InferenceError
from qm9flow.evaluation import intervals
from qm9flow.evaluation.intervals import calibrate
from qm9flow.inference.calibration import SHARES, Calibration, SourceCalibration, conformal_factor
from qm9flow.inference.domain import far_factor
from qm9flow.inference.judged import Judged, over_conformers
from qm9flow.inference.table import Table
from qm9flow.properties import TARGETS


def judged(n: int, seed: int, noise: float = 1.0) -> tuple[Judged, np.ndarray]:
    """Values whose errors are in proportion to known spreads."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(10, 1, (n, len(TARGETS)))
    spread = np.exp(rng.normal(0, 1, n))
    off = rng.laplace(0, noise, (n, len(TARGETS))) * spread[:, None]
    relative = rng.laplace(0, 1e-3, (n, 3))
    values = truth + off
    values[:, -3:] = truth[:, -3:] * (1 + relative)
    columns = {name: values[:, i] for i, name in enumerate(TARGETS)}
    spreads = dict.fromkeys(TARGETS[:-3], spread)
    return Judged(columns, values, spreads, np.abs(rng.normal(5, 1, n))), truth


def test_the_factor_is_the_rank_that_theory_asks_for() -> None:
    assert conformal_factor(np.arange(1.0, 100.0), 0.9) == 90
    assert conformal_factor(np.arange(1.0, 10.0), 0.9) == 9
    assert conformal_factor(np.array([3.0]), 0.9) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
def test_intervals_hold_as_often_as_they_say(seed: int, level: float) -> None:
    before, known = judged(1500, seed)
    after, truth = judged(3000, seed + 1)
    found = intervals.tested(calibrate(before, known, level), after, truth)
    for name in TARGETS:
        allowed = 5 * np.sqrt(level * (1 - level) * (1 / 1500 + 1 / 3000))
        # widened far out, so that they may hold more often
        assert level - allowed < found.coverage[name] < level + allowed + 0.02, name
    assert found.molecules == 1500
    assert found.test_molecules == 3000


def test_rotational_constants_err_in_proportion() -> None:
    found, truth = judged(2000, 3)
    factor = calibrate(found, truth).factors["a"]
    assert 1e-3 < factor < 4e-3


def test_scores_are_shares() -> None:
    found, truth = judged(4000, 5)
    calibrated = calibrate(found, truth)
    assert found.distances is not None
    scores = np.array([calibrated.score(d) for d in found.distances])
    assert abs(scores.mean() - 0.5) < 0.01
    assert calibrated.score(0.0) == 1.0
    assert calibrated.score(1e9) == 0.0
    far = far_factor(np.array([0.0, calibrated.usual * 1.01, calibrated.usual * 4]), calibrated)
    assert far.tolist() == [1.0, 1.5, 4.0]


def test_conformers_that_disagree_spread() -> None:
    values = np.array([[1.0], [3.0], [7.0]])
    spreads = np.array([[0.0], [0.0], [2.0]])
    mean, spread = over_conformers(values, spreads, np.array([0.5, 0.5, 1.0]), np.array([0, 2]))
    assert mean[:, 0].tolist() == [2.0, 7.0]
    assert spread[:, 0].tolist() == [1.0, 2.0]


def test_a_calibration_comes_back_from_its_file() -> None:
    found, truth = judged(500, 7)
    item = intervals.tested(calibrate(found, truth), found, truth)
    whole = Calibration(0.9, {"dft": item, "smiles": item})
    assert Calibration.from_json(whole.to_json(), "here") == whole


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"level": 1.5},
        {"level": "much"},
        {"sources": []},
        {"sources": {"dft": {}}},
        {"sources": {"guess": None}},
        {"sources": {"dft": {"molecules": 1, "factors": {"mu": -1}, "distances": [0] * 103}}},
        {"sources": {"dft": {"molecules": 1, "factors": {"mü": 1}, "distances": [0] * 103}}},
    ],
)
def test_a_damaged_file_is_refused_by_name(change: dict[str, object]) -> None:
    item = SourceCalibration(1, {"mu": 1.0}, tuple(np.linspace(0, 1, len(SHARES))))
    plain = json.loads(Calibration(0.9, {"dft": item}).to_json())
    with pytest.raises(InferenceError, match=r"calibration\.json"):
        Calibration.from_json(json.dumps(plain | change), "calibration.json")


def test_intervals_of_what_cannot_be_negative_do_not_go_below_zero() -> None:
    said = Judged({"gap": np.array([0.5, -3.0])}, np.zeros((2, 1)), {"gap": np.ones(2)}, None)
    calibrated = SourceCalibration(10, {"gap": 1.0}, tuple(np.linspace(0, 1, len(SHARES)).tolist()))
    table = Table.of(said, ["gap"], calibrated, np.ones((2, 1)))
    assert table.intervals == [[(0.0, 1.5)], [None]]
