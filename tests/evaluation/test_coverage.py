"""Shares inside intervals, by hand and by chance."""

import numpy as np
import pytest

from qm9flow.evaluation.breakdown import by_heavy_atoms
from qm9flow.evaluation.coverage import CONFIDENCE, Intervals, coverage, joint_band
from qm9flow.inference.calibration import conformal_factor
from qm9flow.properties import TARGETS

MU, GAP = TARGETS.index("mu"), TARGETS.index("gap")


def test_shares_and_widths_by_hand() -> None:
    errors = np.zeros((4, len(TARGETS)))
    errors[:, MU] = 0.5, -1.0, 2.0, -3.0
    halves = np.full_like(errors, np.nan)
    halves[:, MU] = 1.0, 1.0, 1.0, 5.0
    halves[:2, GAP] = 1.0
    found = coverage(Intervals(0.9, 50, halves), errors)
    assert found is not None
    assert found.inside == {"mu": 0.75, "gap": 1.0}
    assert found.width == {"mu": 4.0, "gap": 2.0}
    assert found.band == joint_band(0.9, 50, 4, 2)


def test_without_intervals_there_is_nothing_to_say() -> None:
    nothing = np.full((3, len(TARGETS)), np.nan)
    assert coverage(Intervals(0.9, 50, nothing), np.zeros_like(nothing)) is None
    counts = np.zeros((3, 10))
    counts[:, 6] = 1
    assert by_heavy_atoms(counts, np.zeros_like(nothing), nothing)[0].inside == {}


def test_groups_have_their_own_shares() -> None:
    counts = np.zeros((3, 10))
    counts[:, 6] = 1, 1, 2
    errors, halves = np.zeros((3, len(TARGETS))), np.full((3, len(TARGETS)), np.nan)
    errors[:, MU] = 1.0, 3.0, 1.0
    halves[:, MU] = 2.0
    groups = by_heavy_atoms(counts, errors, halves)
    assert [group.inside for group in groups] == [{"mu": 0.5}, {"mu": 1.0}]


@pytest.mark.parametrize("targets", [1, 14])
def test_shares_lie_in_the_band_as_often_as_it_says(targets: int) -> None:
    """Conformal intervals of independent targets, calibrated and tested anew many times."""
    rng, calibration, test, repeats = np.random.default_rng(0), 200, 400, 2000
    low, high = joint_band(0.9, calibration, test, targets)
    ratios = rng.exponential(size=(repeats, targets, calibration))
    others = rng.exponential(size=(repeats, targets, test))
    factors = np.array([[conformal_factor(own, 0.9) for own in each] for each in ratios])
    shares = (others <= factors[..., None]).mean(axis=2)
    held = ((shares >= low) & (shares <= high)).all(axis=1).mean()
    # Bonferroni and whole molecules err on the safe side only.
    assert CONFIDENCE - 0.007 < held <= 1
    assert low < 0.9 < high
    assert (shares < np.nextafter(low, 1) + 0.01).any()


def test_more_molecules_make_the_band_narrower() -> None:
    wide, narrow = joint_band(0.9, 500, 500, 14), joint_band(0.9, 5000, 10_831, 14)
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1]
    assert narrow == pytest.approx((0.882, 0.917), abs=1e-3)
