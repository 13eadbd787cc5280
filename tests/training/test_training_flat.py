"""All weights as one vector."""

import pytest
import torch
from torch import nn

from qm9flow.config import MPNNConfig
from qm9flow.errors import ConfigError
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.training.flat import FlatParameters, forward_order

NUMBERS = torch.tensor([[6, 1, 1, 1, 1]])
POSITIONS = torch.eye(5, 3)[None]


class Crossed(nn.Module):
    """Layers registered in another order than they run, one used without being called."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.inner = nn.Linear(4, 4)
        self.first = nn.Linear(3, 4)
        self.borrowed = nn.Linear(4, 4)

    def forward(self, numbers: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        hidden = self.first(positions.sum(dim=1))
        hidden = nn.functional.linear(hidden, self.borrowed.weight, self.borrowed.bias)
        return self.last(self.inner(hidden))


def test_layers_come_in_the_order_in_which_they_run() -> None:
    order = forward_order(Crossed(), NUMBERS, POSITIONS)
    assert order == ["first", "borrowed", "inner", "last"]


def test_the_mpnn_goes_from_embedding_to_readout() -> None:
    network = build(MPNNConfig(conv_layers=2, fc_layers=2, hidden=4), LEARNED)
    order = forward_order(network, NUMBERS, POSITIONS)
    rooms = list(dict.fromkeys(name.partition(".")[0] for name in order))
    assert (rooms[0], rooms[-1]) == ("embedding", "readout")


def test_the_network_computes_the_same_and_moves_with_the_vector() -> None:
    network = Crossed()
    before = network(NUMBERS, POSITIONS).detach()
    flat = FlatParameters(network, forward_order(network, NUMBERS, POSITIONS))
    torch.testing.assert_close(network(NUMBERS, POSITIONS), before, rtol=0, atol=0)
    assert flat.count == sum(p.numel() for p in network.parameters())
    flat.weights.detach().zero_()
    assert network(NUMBERS, POSITIONS).abs().sum() == 0


def test_gradients_of_all_layers_arrive_and_add_up() -> None:
    network, twin = Crossed(), Crossed()
    twin.load_state_dict(network.state_dict())
    flat = FlatParameters(network, forward_order(network, NUMBERS, POSITIONS))
    for _ in range(2):
        network(NUMBERS, POSITIONS).sum().backward()
    twin(NUMBERS, POSITIONS).sum().backward()
    for index, layer in enumerate(flat.layers):
        got = flat.gradient[flat.layer_of == index]
        want = [p.grad.flatten() for p in twin.get_submodule(layer).parameters()]
        torch.testing.assert_close(got, 2 * torch.cat(want))
    assert flat.gradient[flat.layer_of == len(flat.layers)].abs().sum() == 0


def test_frozen_layers_are_left_out() -> None:
    network = Crossed()
    network.inner.requires_grad_(False)
    kept = network.inner.weight.clone()
    flat = FlatParameters(network, forward_order(network, NUMBERS, POSITIONS))
    assert flat.layers == ("first", "borrowed", "last")
    flat.weights.detach().zero_()
    assert torch.equal(network.inner.weight, kept)


@pytest.mark.parametrize("network", [nn.ReLU(), Crossed().double()])
def test_networks_that_cannot_be_trained_are_refused(network: nn.Module) -> None:
    layers = [name for name, _ in network.named_modules()]
    with pytest.raises(ConfigError, match="float32"):
        FlatParameters(network, layers)
