"""The gradient monitor on made-up gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from qm9flow.training import gradients
from qm9flow.training.events import HISTOGRAM_EDGES
from qm9flow.training.flat import FlatParameters
from qm9flow.training.gradients import GradientMonitor
from qm9flow.training.verdicts import CONSECUTIVE, HISTORY

ONE = torch.ones(())


@pytest.fixture
def flat() -> FlatParameters:
    """Two layers, of 8 and 3 numbers."""
    torch.manual_seed(0)
    return FlatParameters(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)), ["0", "1"])


def set_gradient(flat: FlatParameters, layer: int, values: list[float]) -> None:
    places = torch.nonzero(flat.layer_of == layer).flatten()
    flat.gradient[places] = torch.tensor((values * len(places))[: len(places)])


def test_a_summary_counts_what_there_is(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [0.0, -0.2])
    set_gradient(flat, 1, [3.0])
    monitor.sample(ONE, ONE)
    set_gradient(flat, 1, [-5e3])
    monitor.sample(ONE, ONE)
    summary = monitor.summarise()
    assert summary is not None
    assert summary.layers == ("0", "1")
    assert summary.samples == 2
    assert summary.norm == pytest.approx([np.sqrt(4 * 0.04), np.sqrt((27 + 75e6) / 2)])
    assert summary.maximum == pytest.approx([0.2, 5e3])
    assert summary.zero_share == pytest.approx([0.5, 0.0])
    expected = np.zeros((2, len(HISTOGRAM_EDGES) - 1), dtype=int)
    expected[0, np.searchsorted(HISTOGRAM_EDGES, np.log10(0.2)) - 1] = 8
    expected[1, np.searchsorted(HISTOGRAM_EDGES, np.log10(3)) - 1] = 3
    expected[1, np.searchsorted(HISTOGRAM_EDGES, np.log10(5e3)) - 1] = 3
    assert np.array_equal(summary.histogram, expected)


def test_what_lies_outside_is_counted_in_the_outermost_bins(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [1e-20, 1e9])
    monitor.sample(ONE, ONE)
    summary = monitor.summarise()
    assert summary is not None
    assert (summary.histogram[0, 0], summary.histogram[0, -1]) == (4, 4)


def test_the_factor_multiplies_the_gradient(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [2.0])
    monitor.sample(ONE, torch.tensor(0.5))
    summary = monitor.summarise()
    assert summary is not None
    assert summary.norm[0] == pytest.approx(np.sqrt(8))
    assert summary.histogram[0, 24] == 8  # log10 of 1


def test_a_summary_starts_afresh(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    assert monitor.summarise() is None
    monitor.sample(ONE, ONE)
    monitor.summarise()
    assert monitor.summarise() is None


def test_large_layers_are_counted_by_a_fixed_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "COMPONENTS", 10)
    flat = FlatParameters(nn.Linear(50, 40), [""])
    flat.gradient[flat.layer_of == 0] = 1.0
    monitor = GradientMonitor(flat)
    monitor.sample(ONE, ONE)
    summary = monitor.summarise()
    assert summary is not None
    assert summary.histogram.sum() == 10
    assert summary.norm[0] == pytest.approx(np.sqrt(2040))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_component_is_dead(flat: FlatParameters, value: float) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [1.0, value])
    monitor.sample(ONE, ONE)
    assert monitor.check() == "dead"
    assert monitor.worst == "dead"


def test_units_without_gradient_are_counted_by_their_biases(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [1.0])
    set_gradient(flat, 1, [1.0])
    flat.gradient[flat.biases[0]] = 0.0
    monitor.sample(ONE, ONE, 12, 7)
    monitor.check()
    (sample,) = monitor.history
    assert (sample.step, sample.molecules) == (12, 7)
    assert list(sample.dead_share) == [0.5, 0.0]


def test_a_light_sample_is_judged_and_leaves_histograms_alone(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [2.0])
    set_gradient(flat, 1, [1.0])
    monitor.sample(ONE, ONE)
    set_gradient(flat, 0, [1e3])
    monitor.sample(ONE, ONE, is_whole=False)
    summary = monitor.summarise()
    assert summary is not None
    assert summary.samples == 2
    assert summary.maximum == pytest.approx([2.0, 1.0])
    assert summary.histogram.sum() == 11
    assert summary.norm[0] == pytest.approx(np.sqrt((8 * 4 + 8e6) / 2))
    assert len(monitor.history) == 2


def test_early_layers_almost_without_gradient_vanish(flat: FlatParameters) -> None:
    monitor = GradientMonitor(flat)
    set_gradient(flat, 0, [1e-9])
    set_gradient(flat, 1, [1.0])
    for _ in range(CONSECUTIVE):
        assert monitor.check() == "healthy"
        monitor.sample(ONE, ONE)
    assert monitor.check() == "vanishing"
    set_gradient(flat, 0, [1.0])
    monitor.sample(ONE, ONE)
    assert (monitor.check(), monitor.worst) == ("healthy", "vanishing")


def test_a_restored_history_judges_the_same(flat: FlatParameters) -> None:
    monitor, other = GradientMonitor(flat), GradientMonitor(flat)
    set_gradient(flat, 0, [1e-9])
    set_gradient(flat, 1, [1.0])
    for _ in range(HISTORY + 9):
        monitor.sample(ONE, ONE)
    monitor.check()
    rows = monitor.history_rows()
    assert rows.shape == (HISTORY, monitor.row_width)
    other.restore(rows, monitor.first_loss, monitor.worst)
    assert np.array_equal(other.history_rows(), rows)
    assert other.check() == monitor.check() == "vanishing"
