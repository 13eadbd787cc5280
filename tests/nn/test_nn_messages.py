"""The factored convolution: same function as NNConv, in any blocks, with right gradients."""

import pytest
import torch
from network_suite import MOLECULES, pad
from torch import Tensor, nn
from torch_geometric.nn.conv import NNConv

from qm9flow.nn import messages
from qm9flow.nn.messages import sum_messages
from qm9flow.nn.mpnn import EdgeConv
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GaussianBasis

HIDDEN, WIDTH, RADIAL = 12, 9, 7


def _arguments(molecules: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(molecules, 4, 4, 6), (molecules, 4, 3), (7, 6), (7, 3, 2)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def test_against_the_formula() -> None:
    edges, features, rows, matrices = _arguments()
    phi = torch.einsum("bjie,ke->bjik", edges, rows).relu()
    expected = torch.einsum("bjik,bjc,kch->bih", phi, features, matrices)
    torch.testing.assert_close(sum_messages(edges, features, rows, matrices), expected)


@pytest.mark.parametrize("atoms", [1, 8, 12, 1000])
def test_gradients_in_blocks(monkeypatch: pytest.MonkeyPatch, atoms: int) -> None:
    monkeypatch.setattr(messages, "CPU_BLOCK_ATOMS", atoms)
    assert torch.autograd.gradcheck(sum_messages, _arguments())


@pytest.mark.parametrize("given_as_basis", [False, True])
def test_equals_nnconv_at_envelope_one(given_as_basis: bool) -> None:
    torch.manual_seed(1)
    ours = EdgeConv(HIDDEN, WIDTH, RADIAL).double()
    nn.init.normal_(ours.nn[2].bias, std=0.1)
    nn.init.normal_(ours.bias, std=0.1)
    edge_network = nn.Sequential(
        nn.Linear(RADIAL, WIDTH), nn.ReLU(), nn.Linear(WIDTH, HIDDEN * HIDDEN)
    )
    theirs = NNConv(HIDDEN, HIDDEN, edge_network, aggr="add").double()
    theirs.load_state_dict(ours.state_dict())

    numbers, positions = pad(MOLECULES)
    B, N = numbers.shape
    pairs = pair_mask(numbers > 0)
    distances = pair_distances(positions, pairs)
    near = pairs & (distances < 5.0)
    functions = GaussianBasis(RADIAL, 5.0).double()(distances)
    edges = torch.cat([functions, torch.ones_like(distances)[..., None]], dim=-1)
    molecule, src, dst = near.nonzero(as_tuple=True)
    edge_index = torch.stack([molecule * N + src, molecule * N + dst])
    features = torch.randn(B, N, 5 if given_as_basis else HIDDEN, dtype=torch.float64)
    basis = torch.randn(5, HIDDEN, dtype=torch.float64) if given_as_basis else None
    hidden = features if basis is None else features @ basis
    weight = torch.randn(B * N, HIDDEN, dtype=torch.float64)

    out = {}
    for name, conv in (("ours", ours), ("theirs", theirs)):
        x = features.clone().requires_grad_()
        if name == "ours":
            y = conv(x, edges * near[..., None], basis).view(B * N, HIDDEN)
        else:
            h = x if basis is None else x @ basis
            y = conv(h.view(B * N, HIDDEN), edge_index, functions[near])
        (y * weight).sum().backward()
        out[name] = [y.detach(), x.grad, *(p.grad for p in conv.parameters())]
    assert hidden.shape == (B, N, HIDDEN)
    _assert_relative(out["ours"][0], out["theirs"][0], 1e-9)
    for mine, other in zip(out["ours"][1:], out["theirs"][1:], strict=True):
        _assert_relative(mine, other, 1e-8)


def _assert_relative(value: Tensor | None, expected: Tensor | None, limit: float) -> None:
    assert value is not None
    assert expected is not None
    assert expected.abs().max() > 0
    difference = (value - expected).abs().max() / expected.abs().max()
    assert difference <= limit, f"relative difference {difference:.1e}"
