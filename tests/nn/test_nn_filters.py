"""Sums over neighbours with filters: closed forms, right gradients, both ways of computing them."""

from collections.abc import Sequence

import pytest
import torch
from network_suite import METHANE, MOLECULES, pad, rotation
from torch import Tensor

from qm9flow.config import ModelConfig, PaiNNConfig, SchNetConfig
from qm9flow.nn import filters as filters_module
from qm9flow.nn.catalog import build
from qm9flow.nn.filters import directed_sum, filtered_sum, half_of_pairs
from qm9flow.nn.painn import PaiNN
from qm9flow.properties import LEARNED

SIZES = [1, 2, 5, 6]


@pytest.fixture
def all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as on a GPU."""
    monkeypatch.setattr(filters_module, "takes_all_pairs", lambda _like: True)


def arguments(N: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Symmetric filters, antisymmetric directions, scalars, vectors."""
    generator = torch.Generator().manual_seed(N)
    shapes = [(2, N, N, 4), (2, 3, N, N), (2, N, 4), (2, 3, N, 4)]
    filters, directions, scalars, vectors = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    filters = filters + filters.transpose(1, 2)
    filters.diagonal(dim1=1, dim2=2).zero_()
    return filters, directions - directions.transpose(2, 3), scalars, vectors


def expected_sums(N: int) -> list[Tensor]:
    filters, directions, scalars, vectors = arguments(N)
    return [
        torch.einsum("bijf,bjf->bif", filters, scalars),
        torch.einsum("bijf,bcjf->bcif", filters, vectors),
        torch.einsum("bcij,bijf,bjf->bcif", directions, filters, scalars),
    ]


@pytest.mark.parametrize("N", SIZES)
def test_half_of_pairs_against_the_formula(N: int) -> None:
    filters, directions, scalars, vectors = arguments(N)
    i, j = half_of_pairs(N, filters.device)
    half = filters[:, i, j]
    sums = [
        filtered_sum(half, scalars),
        filtered_sum(half, vectors),
        directed_sum(half, scalars, directions[:, :, i, j]),
    ]
    assert_all_close(sums, expected_sums(N))


@pytest.mark.usefixtures("all_pairs")
@pytest.mark.parametrize("N", SIZES)
def test_all_pairs_against_the_formula(N: int) -> None:
    filters, directions, scalars, vectors = arguments(N)
    sums = [
        filtered_sum(filters, scalars),
        filtered_sum(filters, vectors),
        directed_sum(filters, scalars, directions),
    ]
    assert_all_close(sums, expected_sums(N))


@pytest.mark.parametrize("N", [2, 5, 6])
def test_gradients(N: int) -> None:
    filters, directions, scalars, vectors = arguments(N)
    i, j = half_of_pairs(N, filters.device)
    half, along = filters[:, i, j].requires_grad_(), directions[:, :, i, j].requires_grad_()
    scalars.requires_grad_()
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(filtered_sum, (half, scalars))
    assert torch.autograd.gradcheck(filtered_sum, (half, vectors))
    assert torch.autograd.gradcheck(directed_sum, (half, scalars, along))


@pytest.mark.parametrize("N", range(1, 9))
def test_each_pair_is_there_and_no_atom_meets_itself(N: int) -> None:
    i, j = half_of_pairs(N, torch.device("cpu"))
    assert i.shape == j.shape == (N // 2, N)
    pairs = {frozenset(pair) for pair in torch.stack([i.flatten(), j.flatten()], dim=1).tolist()}
    assert pairs == {frozenset((a, b)) for a in range(N) for b in range(a)}


@pytest.mark.parametrize("config", [SchNetConfig(hidden=8), PaiNNConfig(hidden=8)])
def test_networks_on_half_and_on_all_pairs(
    config: ModelConfig, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    network = build(config, LEARNED).double()
    batch = pad(MOLECULES)
    results = []
    for _ in range(2):
        network.zero_grad()
        value = network(*batch)
        value.square().sum().backward()
        results.append([value, *(p.grad for p in network.parameters())])
        request.getfixturevalue("all_pairs")
    assert_all_close(*results)


def test_vectors_turn_with_the_molecule() -> None:
    torch.manual_seed(0)
    network = build(PaiNNConfig(hidden=8), LEARNED).double()
    assert isinstance(network, PaiNN)
    numbers, positions = pad(MOLECULES)
    for turn in (rotation(1), -rotation(2)):
        scalars, vectors = network.represent(numbers, positions)
        same, turned = network.represent(numbers, positions @ turn.t())
        torch.testing.assert_close(same, scalars, rtol=1e-9, atol=1e-9)
        assert vectors is not None
        expected = torch.einsum("dc,bncf->bndf", turn, vectors)
        torch.testing.assert_close(turned, expected, rtol=1e-9, atol=1e-9)


def test_symmetry_leaves_no_vector_at_the_centre() -> None:
    torch.manual_seed(0)
    network = build(PaiNNConfig(hidden=8), LEARNED).double()
    assert isinstance(network, PaiNN)
    _, vectors = network.represent(*pad([METHANE]))
    assert vectors is not None
    assert vectors[0, 0].abs().max() < 1e-12
    assert vectors[0, 1:].abs().max() > 1e-2


def assert_all_close(values: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-10)
