"""Groups, residuals and worst molecules against sums by hand."""

import numpy as np
import pytest

from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.evaluation.breakdown import (
    Worst,
    by_atoms,
    by_element,
    by_heavy_atoms,
    residuals,
    worst,
)
from qm9flow.properties import TARGETS

MU, U0 = TARGETS.index("mu"), TARGETS.index("u0")


@pytest.fixture
def counts() -> np.ndarray:
    """Methane, water, C9H20 and C7F4 as compositions."""
    table = np.zeros((4, 10))
    table[0, [1, 6]] = 4, 1
    table[1, [1, 8]] = 2, 1
    table[2, [1, 6]] = 20, 9
    table[3, [6, 9]] = 7, 4
    return table


@pytest.fixture
def errors() -> np.ndarray:
    """Of mu: 1, -2, 3, -4; of U0 ten times that."""
    table = np.zeros((4, len(TARGETS)))
    table[:, MU] = 1, -2, 3, -4
    table[:, U0] = 10, -20, 30, -40
    return table


def test_by_heavy_atoms(counts: np.ndarray, errors: np.ndarray) -> None:
    groups = by_heavy_atoms(counts, errors)
    assert [(group.key, group.molecules) for group in groups] == [("1", 2), ("9", 1), ("11", 1)]
    assert [group.mae["mu"] for group in groups] == [1.5, 3, 4]
    assert groups[0].mae["u0"] == 15
    assert groups[0].name == "1 heavy atom"
    assert groups[1].name == "9 heavy atoms"


def test_by_atoms(counts: np.ndarray, errors: np.ndarray) -> None:
    groups = by_atoms(counts, errors)
    found = [(group.key, group.molecules, group.mae["mu"]) for group in groups]
    assert found == [("1-9", 2, 1.5), ("10-12", 1, 4), ("25-29", 1, 3)]


def test_by_element_counts_a_molecule_more_than_once(
    counts: np.ndarray, errors: np.ndarray
) -> None:
    groups = {group.key: group for group in by_element(counts, errors)}
    assert {key: group.molecules for key, group in groups.items()} == {
        "H": 3, "C": 3, "O": 1, "F": 1,
    }  # fmt: skip
    assert groups["H"].mae["mu"] == 2
    assert groups["C"].mae["mu"] == pytest.approx(8 / 3)
    assert groups["F"].name == "with F"


def test_sizes_of_qm9_all_belong_somewhere(dataset: Dataset) -> None:
    counts = dataset.counts()[:5000]
    errors = np.ones((5000, len(TARGETS)))
    for grouping in (by_atoms, by_heavy_atoms):
        assert sum(group.molecules for group in grouping(counts, errors)) == 5000
    assert dataset.sizes.max() <= 29


def test_residuals_by_hand(errors: np.ndarray) -> None:
    spread = residuals(errors, np.zeros_like(errors))[MU]
    assert (spread.target, spread.unit) == ("mu", "D")
    assert spread.bias == -0.5
    assert spread.mae == spread.median == 2.5
    assert spread.mae_standard_error == pytest.approx(np.sqrt(1.25) / 2)
    assert spread.rmse == pytest.approx(np.sqrt(7.5))
    assert spread.largest == 4
    assert spread.within_accuracy == 0
    assert residuals(errors, errors)[U0].within_accuracy == 1
    assert residuals(errors, errors)[TARGETS.index("a")].within_accuracy is None


def test_worst_come_in_the_order_of_their_errors(dataset: Dataset) -> None:
    indices = np.array([40, 10, 30, 20])
    truth = dataset.truth()[indices]
    predicted = truth.copy()
    predicted[:, MU] += [0.5, -3.0, 2.0, 0.1]
    found = worst(dataset, indices, predicted, truth, target="mu", how_many=3)
    assert [item.place for item in found] == [10, 30, 40]
    assert [item.error for item in found] == pytest.approx([-3, 2, 0.5])
    first = found[0]
    assert first.qm9_index == dataset.index[10]
    assert first.smiles == dataset.smiles(10)
    assert first.atoms == dataset.sizes[10]
    assert first.true == truth[1, MU]


@pytest.mark.parametrize(
    ("predicted", "true", "texts"),
    [
        (-11915.2345, -11913.2111, ("-11915.23", "-11913.21")),
        (5.1321, 19.0388, ("5.1", "19.0")),
        (2.06211, 1.93661, ("2.062", "1.937")),
        (1.5, 1.5, ("1.500", "1.500")),
        (4000.4, 1.2, ("4000", "1")),
    ],
)
def test_values_are_shown_as_far_as_they_differ(
    predicted: float, true: float, texts: tuple[str, str]
) -> None:
    assert Worst(0, 1, "C", 5, predicted, true).texts() == texts


def test_unknown_target_is_refused(dataset: Dataset) -> None:
    indices = np.arange(3)
    truth = dataset.truth()[indices]
    with pytest.raises(ConfigError, match="unknown target 'mass'"):
        worst(dataset, indices, truth, truth, target="mass", how_many=1)
