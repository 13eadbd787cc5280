"""Distances, Gaussians, the envelope, the pooling: closed forms."""

import math

import pytest
import torch
from network_suite import MOLECULES, pad

from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import Edges, GaussianBasis, envelope
from qm9flow.nn.readout import TYPICAL_ATOMS, Pooling


def test_pairs_against_a_loop() -> None:
    numbers, positions = pad(MOLECULES)
    pairs = pair_mask(numbers > 0)
    distances = pair_distances(positions, pairs)
    for b in range(len(numbers)):
        for i in range(numbers.shape[1]):
            for j in range(0, numbers.shape[1], 5):
                is_pair = i != j and bool(numbers[b, i]) and bool(numbers[b, j])
                assert pairs[b, i, j] == is_pair
                expected = math.dist(positions[b, i], positions[b, j]) if is_pair else 1.0
                assert distances[b, i, j] == pytest.approx(expected, abs=1e-12)


def test_envelope_values_and_derivatives() -> None:
    x = torch.tensor([0.0, 2.5, 5.0 - 1e-12, 5.0, 7.0], dtype=torch.float64, requires_grad=True)
    value = envelope(x, 5.0)
    half = 1 - 28 / 64 + 48 / 128 - 21 / 256  # by hand, p = 6
    assert value.tolist() == pytest.approx([1.0, half, 0.0, 0.0, 0.0], abs=1e-12)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first[2:].abs().max() < 1e-9
    assert second[2:].abs().max() < 1e-9
    falling = envelope(torch.linspace(0, 5, 1000, dtype=torch.float64), 5.0)
    assert (falling.diff() <= 0).all()


def test_envelope_loses_no_digits_in_float32() -> None:
    """Its polynomial, written out, cancels from 50 to 0: 2e-6 of noise on each pair of atoms."""
    distances = torch.linspace(0, 5, 20_001)
    error = (envelope(distances, 5.0) - envelope(distances.double(), 5.0)).abs()
    assert error.max() < 5e-7
    assert error[distances > 4.5].max() < 1e-7


def test_gaussians_peak_at_their_centres() -> None:
    basis = GaussianBasis(11, 5.0).double()
    values = basis(torch.linspace(0, 5, 11, dtype=torch.float64))
    assert values.diagonal().tolist() == pytest.approx([1.0] * 11, abs=1e-6)
    assert values[3, 4].item() == pytest.approx(math.exp(-0.5), abs=1e-6)


def test_edges_are_zero_without_a_pair_and_beyond_the_cutoff() -> None:
    numbers, positions = pad(MOLECULES)
    pairs = pair_mask(numbers > 0)
    distances = pair_distances(positions, pairs)
    edges = Edges(8, 3.0).double()(distances, pairs)
    assert edges.shape == (*pairs.shape, 9)
    near = pairs & (distances < 3.0)
    assert (edges[~near] == 0).all()
    assert (edges[near][:, -1] > 0).all()


def test_pooling_sums_extensive_and_averages_the_rest() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]])
    atoms = torch.tensor([[True, True, False]])
    pooled = Pooling(("homo", "u0"))(values, atoms)
    assert pooled.tolist() == [[2.0, pytest.approx(8.0 / TYPICAL_ATOMS)]]
