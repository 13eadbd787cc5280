"""Distances, radial functions, their weights, the pooling: closed forms."""

import math

import numpy as np
import pytest
import torch
from network_suite import MOLECULES, pad

from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import BesselBasis, Edges, GaussianBasis, cosine_cutoff, envelope
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


def test_cosine_cutoff_values_and_slope() -> None:
    distances = torch.tensor([0.0, 1.0, 2.5, 5.0, 7.0], dtype=torch.float64, requires_grad=True)
    weight = cosine_cutoff(distances, 5.0)
    expected = [1.0, (math.cos(math.pi / 5) + 1) / 2, 0.5, 0.0, 0.0]
    assert weight.tolist() == pytest.approx(expected, abs=1e-15)
    assert weight[-2:].tolist() == [0.0, 0.0]
    (slope,) = torch.autograd.grad(weight.sum(), distances)
    assert slope[-2:].tolist() == [0.0, 0.0]


def test_gaussians_peak_at_their_centres() -> None:
    basis = GaussianBasis(11, 5.0).double()
    values = basis(torch.linspace(0, 5, 11, dtype=torch.float64))
    assert values.diagonal().tolist() == pytest.approx([1.0] * 11, abs=1e-6)
    assert values[3, 4].item() == pytest.approx(math.exp(-0.5), abs=1e-6)


def test_bessel_functions_have_their_closed_form() -> None:
    """Beside NumPy's sinc: sin(n pi x) / (n pi x), whose limit at 0 is 1."""
    distances = torch.linspace(0.05, 4.95, 99, dtype=torch.float64)
    values = BesselBasis(6, 5.0).double()(distances) / envelope(distances, 5.0)[:, None]
    order = np.arange(1, 7)
    expected = np.sinc(distances.numpy()[:, None] / 5.0 * order) * order * np.pi / 5.0
    np.testing.assert_allclose(values.numpy(), np.sqrt(2 / 5.0) * expected, rtol=0, atol=1e-6)


def test_bessel_functions_are_orthonormal_in_the_sphere() -> None:
    """Integral of g_n g_m d^2 from 0 to the cutoff, without the envelope."""
    distances = torch.linspace(1e-6, 5 - 1e-6, 20_001, dtype=torch.float64)
    values = BesselBasis(8, 5.0).double()(distances) / envelope(distances, 5.0)[:, None]
    weighted = torch.nan_to_num(values) * distances[:, None]
    products = weighted[:, :, None] * weighted[:, None, :]
    overlap = torch.trapezoid(products, distances, dim=0)
    torch.testing.assert_close(overlap, torch.eye(8).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("cutoff", [3.0, 5.0])
def test_bessel_functions_vanish_with_their_slope_at_the_cutoff(cutoff: float) -> None:
    distances = torch.tensor([0.37, 0.999, 1.0, 1.3], dtype=torch.float64) * cutoff
    distances.requires_grad_()
    basis = BesselBasis(5, cutoff).double()
    values = basis(distances)
    slopes = torch.autograd.functional.jacobian(lambda d: basis(d).sum(dim=0), distances)
    assert values.shape == (4, 5)
    assert (values[0].abs() > 1e-3).all()
    assert values[1].abs().max() < 1e-8
    assert (values[2:] == 0).all()
    assert slopes.shape == (5, 4)
    assert (slopes[:, 0].abs() > 1e-3).all()
    assert slopes[:, 2:].abs().max() < 1e-12


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
