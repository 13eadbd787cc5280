"""Muon and SOAP beside AdamW: who moves what, how far, and from where a training goes on."""

from dataclasses import replace

import pytest
import torch
from pytorch_optimizer import SOAP

from qm9flow.config import (
    DensityConfig,
    ModelConfig,
    MPNNConfig,
    PaiNNConfig,
    PyGNNConvConfig,
    PyGSchNetConfig,
    SchNetConfig,
    TrainConfig,
)
from qm9flow.nn.catalog import ARCHITECTURES, build
from qm9flow.nn.contract import Network
from qm9flow.properties import LEARNED
from qm9flow.training.flat import FlatParameters, forward_order
from qm9flow.training.optimizers import MUON_MOMENTUM, SOAP_BETAS, SOAP_EVERY, Optimizers

NUMBERS = torch.tensor([[6, 1, 1, 1, 1]])
POSITIONS = torch.eye(5, 3)[None]
RATE = 1e-3
SMALL: list[ModelConfig] = [
    DensityConfig(layers=2, hidden=16, vectors=8, channels=6, radial=4),
    MPNNConfig(conv_layers=2, fc_layers=2, hidden=16, edge_width=8, radial=8),
    SchNetConfig(interactions=2, fc_layers=2, hidden=16, radial=8),
    PaiNNConfig(interactions=2, fc_layers=2, hidden=16, radial=8),
    PyGNNConvConfig(conv_layers=2, fc_layers=2, hidden=16, edge_width=8, radial=8),
    PyGSchNetConfig(hidden=16, interactions=2, radial=8),
]
two_kinds = pytest.mark.parametrize("kind", ["muon", "soap"])
small = pytest.mark.parametrize("config", SMALL, ids=lambda config: config.architecture)


def _network(config: ModelConfig) -> Network:
    torch.manual_seed(5)
    return build(config, LEARNED)


def _flat(network: Network) -> FlatParameters:
    return FlatParameters(network, forward_order(network, NUMBERS, POSITIONS))


def _hidden(network: Network) -> dict[str, torch.nn.Parameter]:
    inside = {id(matrix) for matrix in network.hidden_matrices()}
    return {name: p for name, p in network.named_parameters() if id(p) in inside}


def _matrices(network: Network) -> dict[str, torch.nn.Parameter]:
    """What SOAP moves: readout and embeddings too."""
    return {n: p for n, p in network.named_parameters() if p.ndim == 2 and min(p.shape) > 1}


def _pull(flat: FlatParameters, seed: int) -> None:
    """Random gradients of all weights."""
    generator = torch.Generator().manual_seed(seed)
    flat.gradient.copy_(torch.randn(flat.gradient.shape, generator=generator))


def test_every_architecture_is_tried() -> None:
    assert {config.architecture for config in SMALL} == set(ARCHITECTURES)


@small
def test_hidden_matrices_are_dense_and_outside_the_readout(config: ModelConfig) -> None:
    network = _network(config)
    matrices = network.hidden_matrices()
    assert len({id(matrix) for matrix in matrices}) == len(matrices)
    assert all(matrix.ndim == 2 for matrix in matrices)
    names = set(_hidden(network))
    assert len(names) == len(matrices), "each is a parameter of the network"
    inner = {n for n, p in network.named_parameters() if p.ndim == 2 and min(p.shape) > 1}
    others = inner - names
    readout = ("embedding", "readout", "schnet.embedding", "schnet.lin1", "schnet.lin2")
    assert all(name.startswith(readout) for name in others)
    assert not any(name.startswith(readout) for name in names)


def test_twins_have_the_same_hidden_matrices() -> None:
    ours, theirs = (_network(config) for config in (SMALL[1], SMALL[4]))
    assert set(_hidden(ours)) == set(_hidden(theirs))


@small
def test_one_step_moves_every_weight_once(tiny: TrainConfig, config: ModelConfig) -> None:
    """Hidden matrices by 0.2 rates in the mean square, as far as Muon's five iterations make all
    singular values 1; all else by one rate, as is Adam's first step."""
    network = _network(config)
    flat = _flat(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    hidden = _hidden(network)
    assert hidden
    optimizers = Optimizers(replace(tiny, optimizer="muon"), network, flat)
    _pull(flat, 1)
    optimizers.step(RATE)
    for name, parameter in network.named_parameters():
        moved = (parameter.detach() - before[name]) / RATE
        if name in hidden:
            size = moved.square().mean().sqrt().item()
            assert size == pytest.approx(0.2, rel=0.35), name
        else:
            torch.testing.assert_close(moved.abs(), torch.ones_like(moved), rtol=1e-2, atol=1e-3)


def test_soap_leaves_matrices_of_a_thousand_rows_to_adamw(tiny: TrainConfig) -> None:
    """The edge network of 33 hidden nodes has 33 x 33 outputs; AdamW's first step moves it."""
    network = _network(MPNNConfig(conv_layers=1, fc_layers=2, hidden=33, edge_width=3, radial=4))
    flat = _flat(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizers = Optimizers(replace(tiny, optimizer="soap"), network, flat)
    _pull(flat, 1)
    optimizers.step(RATE)
    matrices = [(n, p) for n, p in network.named_parameters() if p.ndim == 2 and min(p.shape) > 1]
    moved = {name for name, p in matrices if not torch.equal(p, before[name])}
    assert moved == {name for name, p in matrices if max(p.shape) > 1024}
    assert moved
    assert sum(value.numel() for value in optimizers.state().values()) < 5e5


@two_kinds
def test_the_gradients_size_is_no_matter_to_two_steps(tiny: TrainConfig, kind: str) -> None:
    ends = []
    for factor in (1.0, 1024.0):
        network = _network(SMALL[0])
        flat = _flat(network)
        optimizers = Optimizers(replace(tiny, optimizer=kind), network, flat)
        for seed in (1, 2):
            _pull(flat, seed)
            flat.gradient.mul_(factor)
            optimizers.step(RATE)
        ends.append(flat.weights.detach())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-6)


def test_muon_is_torchs_beside_torchs_adamw(tiny: TrainConfig) -> None:
    network, twin = _network(SMALL[0]), _network(SMALL[0])
    flat = _flat(network)
    config = replace(tiny, optimizer="muon", weight_decay=0.1)
    optimizers = Optimizers(config, network, flat)
    inside = _hidden(twin)
    rest = [p for name, p in twin.named_parameters() if name not in inside]
    muon = torch.optim.Muon(
        inside.values(),
        lr=RATE,
        weight_decay=0.1,
        momentum=MUON_MOMENTUM,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(rest, lr=RATE, weight_decay=0.1)
    for seed in range(3):
        _pull(flat, seed)
        for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            theirs.grad = mine.grad.clone()
        optimizers.step(RATE)
        muon.step()
        adamw.step()
    assert optimizers.rate == RATE
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)


def test_soap_is_the_library_s_beside_torch_s_adamw(tiny: TrainConfig) -> None:
    network, twin = _network(SMALL[0]), _network(SMALL[0])
    flat = _flat(network)
    optimizers = Optimizers(replace(tiny, optimizer="soap", weight_decay=0.1), network, flat)
    inside = _matrices(twin)
    rest = [p for name, p in twin.named_parameters() if name not in inside]
    soap = SOAP(
        list(inside.values()),
        lr=RATE,
        betas=SOAP_BETAS,
        weight_decay=0.1,
        precondition_frequency=SOAP_EVERY,
    )
    adamw = torch.optim.AdamW(rest, lr=RATE, weight_decay=0.1)
    for seed in range(SOAP_EVERY + 3):
        _pull(flat, seed)
        for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
            theirs.grad = mine.grad.clone()
        optimizers.step(RATE)
        soap.step()
        adamw.step()
    torch.testing.assert_close(network.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)


@small
def test_soap_s_first_step_only_looks(tiny: TrainConfig, config: ModelConfig) -> None:
    """At the gradients' correlations; its second moves every weight, about as far as Adam's."""
    network = _network(config)
    flat = _flat(network)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizers = Optimizers(replace(tiny, optimizer="soap"), network, flat)
    _pull(flat, 1)
    optimizers.step(RATE)
    matrices = _matrices(network)
    assert all(torch.equal(parameter, before[name]) for name, parameter in matrices.items())
    _pull(flat, 2)
    optimizers.step(RATE)
    for name, parameter in matrices.items():
        size = ((parameter.detach() - before[name]) / RATE).square().mean().sqrt().item()
        assert size == pytest.approx(1.0, rel=0.5), name


@two_kinds
def test_weights_stay_one_vector(tiny: TrainConfig, kind: str) -> None:
    network = _network(SMALL[0])
    flat = _flat(network)
    optimizers = Optimizers(replace(tiny, optimizer=kind), network, flat)
    _pull(flat, 1)
    optimizers.step(RATE)
    _pull(flat, 1)
    optimizers.step(RATE)
    flat.weights.detach().zero_()
    assert not any(p.any() for p in network.parameters())


@two_kinds
def test_frozen_matrices_stay(tiny: TrainConfig, kind: str) -> None:
    network = _network(SMALL[0])
    name, frozen = next(iter(_hidden(network).items()))
    frozen.requires_grad_(False)
    kept = frozen.detach().clone()
    flat = _flat(network)
    optimizers = Optimizers(replace(tiny, optimizer=kind, weight_decay=0.1), network, flat)
    for seed in (1, 2):
        _pull(flat, seed)
        optimizers.step(RATE)
    assert torch.equal(frozen, kept), name
    assert optimizers.state().keys() == optimizers.blank_state().keys()


@pytest.mark.parametrize("kind", ["adam", "adamw", "muon", "soap"])
def test_a_restored_optimizer_goes_on_to_the_last_bit(tiny: TrainConfig, kind: str) -> None:
    config = replace(tiny, optimizer=kind, weight_decay=0.1)
    network, other = _network(SMALL[0]), _network(SMALL[0])
    flat, other_flat = _flat(network), _flat(other)
    optimizers, others = Optimizers(config, network, flat), Optimizers(config, other, other_flat)
    for seed in range(3):
        _pull(flat, seed)
        optimizers.step(RATE)
    state = {name: tensor.clone() for name, tensor in optimizers.state().items()}
    blank = others.blank_state()
    assert {name: (t.shape, t.dtype) for name, t in state.items()} == {
        name: (t.shape, t.dtype) for name, t in blank.items()
    }
    others.restore(state)
    other_flat.weights.detach().copy_(flat.weights.detach())
    for seed in range(3, 3 + SOAP_EVERY):
        for each, vector in ((optimizers, flat), (others, other_flat)):
            _pull(vector, seed)
            each.step(RATE)
    assert torch.equal(flat.weights, other_flat.weights)
    for name, tensor in others.state().items():
        assert torch.equal(tensor, optimizers.state()[name])
        assert not torch.equal(tensor, state[name]), "what was restored is a copy"
