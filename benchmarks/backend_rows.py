"""The rows of `backends.py`: networks with the same weights on each backend, and one step of each.

Molecules as padded groups or as edge lists, and what is computed on the first batch before any
clock runs.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch_geometric.typing
from dgl_peer import (
    NETWORKS,
    TYPICAL_ATOMS,
    EdgeBatch,
    Sizes,
    dense_layers,
    gradient_norm,
    load_weights,
    timed,
    train_step,
)
from peers import FLAGSHIP
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from qm9flow.config import MPNNConfig, SchNetConfig
from qm9flow.data.resident import Batch
from qm9flow.elements import MAX_NUMBER
from qm9flow.nn.catalog import build
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GaussianBasis, message_weight
from qm9flow.nn.schnet import SchNet
from qm9flow.properties import LEARNED

MPNN, SCHNET = MPNNConfig(), SchNetConfig()
COMPARED = ("nnconv", "schnet")
FUNCTIONS = (*COMPARED, "density")
SHARED = {"elements": MAX_NUMBER + 1, "targets": len(LEARNED)}
SIZES = {
    "nnconv": Sizes(
        layers=MPNN.conv_layers,
        hidden=MPNN.hidden,
        edge_width=MPNN.edge_width,
        radial=MPNN.radial,
        dense_layers=MPNN.fc_layers,
        cutoff_angstrom=MPNN.cutoff_angstrom,
        **SHARED,
    ),
    "schnet": Sizes(
        layers=SCHNET.interactions,
        hidden=SCHNET.hidden,
        edge_width=0,
        radial=SCHNET.radial,
        dense_layers=SCHNET.fc_layers,
        cutoff_angstrom=SCHNET.cutoff_angstrom,
        **SHARED,
    ),
}
ROWS = (
    "pyg",
    "pyg sorted",
    "pyg torch_scatter",
    "pyg compiled",
    "pyg tf32",
    "pyg graphs",
    "dense",
    "dense compiled",
    "dense bf16",
    "dense tf32",
    "dense graphs",
)
EXACT, COARSE = 1e-4, 1e-1
"""Largest relative differences of outputs and gradient norms: of float32, and of bf16 and TF32."""

Groups = list[Batch]
Context = Callable[[], contextlib.AbstractContextManager[Any]]


class PaddedHead(nn.Module):
    """`dgl_peer.Head` on padded molecules."""

    def __init__(self, sizes: Sizes) -> None:
        """Make the layers."""
        super().__init__()
        self.dense = dense_layers(sizes)

    def forward(self, hidden: Tensor, atoms: Tensor) -> Tensor:
        """(B, N, h) to (B, T)."""
        return torch.where(atoms[:, :, None], self.dense(hidden), 0.0).sum(dim=1) / TYPICAL_ATOMS


class HeadedSchNet(nn.Module):
    """Our `SchNet` up to the atoms, then `PaddedHead`; parameters have PyG's names."""

    def __init__(self, sizes: Sizes) -> None:
        """Make the network."""
        super().__init__()
        network = build(SCHNET, LEARNED)
        assert isinstance(network, SchNet)
        network.readout = nn.Identity()
        self.network = network
        self.readout = PaddedHead(sizes)

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """(B, T)."""
        pooled: Tensor = self.readout(self.network.represent(numbers, positions)[0], numbers > 0)
        return pooled


def make_dense(function: str) -> nn.Module:
    """Our network, always with the same weights."""
    torch.manual_seed(0)
    if function == "density":
        return build(FLAGSHIP.model, LEARNED)
    if function == "schnet":
        return HeadedSchNet(SIZES[function])
    network = build(MPNN, LEARNED)
    network.readout = PaddedHead(SIZES[function])
    return network


def weights_of(network: nn.Module) -> dict[str, np.ndarray]:
    """By the names of the edge-list networks."""
    return {
        name.removeprefix("network."): parameter.detach().cpu().numpy().copy()
        for name, parameter in network.named_parameters()
    }


def as_edges(groups: Groups, function: str) -> EdgeBatch:
    """The same molecules as an edge list, sorted by destination."""
    sizes, parts, n_atoms, n_molecules = SIZES[function], [], 0, 0
    basis = GaussianBasis(sizes.radial, sizes.cutoff_angstrom).to(groups[0].positions.device)
    for group in groups:
        atoms = group.numbers > 0
        pairs = pair_mask(atoms)
        distances = pair_distances(group.positions, pairs)
        near = pairs & (distances < sizes.cutoff_angstrom)
        b, dst, src = near.nonzero(as_tuple=True)
        place = (atoms.flatten().cumsum(0) - 1 + n_atoms).view_as(atoms)
        length = distances[near]
        molecule = torch.arange(len(atoms), device=atoms.device)[:, None].expand_as(atoms)
        parts.append(
            EdgeBatch(
                numbers=group.numbers[atoms],
                edge_index=torch.stack([place[b, src], place[b, dst]]),
                length=length,
                functions=basis(length),
                weight=message_weight(length, sizes.cutoff_angstrom)[:, None],
                molecule=molecule[atoms] + n_molecules,
                targets=group.targets,
            )
        )
        n_atoms, n_molecules = n_atoms + int(atoms.sum()), n_molecules + len(atoms)
    joined = {
        name: torch.cat([getattr(p, name) for p in parts], dim=1 if name == "edge_index" else 0)
        for name in EdgeBatch.__annotations__
        if name != "graph"
    }
    return EdgeBatch(**joined, graph=joined["edge_index"])


def as_sorted(batch: EdgeBatch) -> EdgeBatch:
    """With PyG's `EdgeIndex`, which knows that it is sorted, and where segments start."""
    n = len(batch.numbers)
    graph = EdgeIndex(batch.edge_index, sparse_size=(n, n), sort_order="col")
    return replace(batch, graph=graph.fill_cache_())


@dataclass
class Row:
    """One backend, ready to train.

    Attributes:
        network: With the weights that all have.
        forward: The network, or what was compiled of it.
        step: A training step on one of `batches`.
        batches: Molecules as the backend takes them, those of the first turn first.
        context: Entered around everything it does.
        tolerance: How far outputs may be from the dense network's.
    """

    network: nn.Module
    forward: Callable[..., Tensor]
    step: Callable[[Any], int]
    batches: Sequence[Any]
    context: Context
    tolerance: float


def dense_forward(
    network: Callable[..., Tensor], groups: Groups, *, is_graphed: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets, group after group; each may be gone when the next one is asked for."""
    for group in groups:
        if is_graphed:
            torch.compiler.cudagraph_mark_step_begin()
        yield network(group.numbers, group.positions), group.targets


def dense_step(
    network: Callable[..., Tensor],
    optimizer: torch.optim.Optimizer,
    groups: Groups,
    *,
    is_graphed: bool,
) -> int:
    """As `dgl_peer.train_step`, group after group."""
    optimizer.zero_grad(set_to_none=False)  # as in `dgl_peer.train_step`
    count = sum(group.targets.numel() for group in groups)
    for output, targets in dense_forward(network, groups, is_graphed=is_graphed):
        ((output - targets).abs().sum() / count).backward()
    optimizer.step()
    return sum(len(group.targets) for group in groups)


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Matrix products in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def torch_scatter_is(used: bool) -> Iterator[None]:
    """PyG with or without torch_scatter, where it is installed."""
    before = torch_geometric.typing.WITH_TORCH_SCATTER
    torch_geometric.typing.WITH_TORCH_SCATTER = used
    yield
    torch_geometric.typing.WITH_TORCH_SCATTER = before


def context_of(name: str, device: torch.device) -> Context:
    """What surrounds a row."""
    if name.endswith("bf16"):
        return partial(torch.autocast, device.type, torch.bfloat16)
    if name.endswith("tf32"):
        return tf32
    if name.startswith("pyg"):
        return partial(torch_scatter_is, name.endswith("torch_scatter"))
    return contextlib.nullcontext


def obstacle(name: str, device: torch.device) -> str | None:
    """Why a row cannot run on the device, None if it can."""
    if name.endswith(("tf32", "graphs")) and device.type != "cuda":
        return "needs a GPU: --device cuda"
    if name.endswith("torch_scatter") and importlib.util.find_spec("torch_scatter") is None:
        return "torch_scatter is not installed"
    return None


def make_row(
    function: str,
    name: str,
    steps: Sequence[Groups],
    edges: Sequence[EdgeBatch],
    device: torch.device,
) -> Row:
    """A network with the weights that all have, compiled as its name says."""
    network = make_dense(function)
    if not name.startswith("dense"):
        weights = weights_of(network)
        network = NETWORKS[function, "pyg"](SIZES[function])
        load_weights(network, weights)
    network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    forward: Callable[..., Tensor] = network
    if name.endswith("compiled"):
        forward = torch.compile(network, dynamic=True)
    if name.endswith("graphs"):
        forward = torch.compile(network, mode="reduce-overhead")
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
    is_graphed = name.endswith("graphs")
    batches: Sequence[Any] = steps
    step: Callable[[Any], int] = partial(dense_step, forward, optimizer, is_graphed=is_graphed)
    if not name.startswith("dense"):
        batches = edges
        step = partial(train_step, forward, optimizer)
    if name.endswith(("sorted", "torch_scatter")):
        batches = [as_sorted(batch) for batch in batches]
    tolerance = COARSE if name.endswith(("bf16", "tf32")) else EXACT
    return Row(network, forward, step, batches, context_of(name, device), tolerance)


def first_step(row: Row) -> tuple[np.ndarray, float]:
    """Outputs and gradient norm of the first batch; no weight moves."""
    first = row.batches[0]
    with row.context():
        if isinstance(first, EdgeBatch):
            outputs = [row.forward(first)]
            (outputs[0] - first.targets).abs().mean().backward()
        else:
            count = sum(group.targets.numel() for group in first)
            outputs = []
            for output, targets in dense_forward(row.forward, first, is_graphed=True):
                outputs.append(output.detach().clone())
                ((output - targets).abs().sum() / count).backward()
    values = torch.cat([output.detach() for output in outputs]).float().cpu().numpy()
    return values, gradient_norm(row.network)


def difference(
    found: tuple[np.ndarray, float], reference: tuple[np.ndarray, float]
) -> dict[str, float]:
    """Relative differences of outputs and of gradient norms."""
    output = np.abs(found[0] - reference[0]).max() / np.abs(reference[0]).max()
    return {
        "output": float(f"{output:.1e}"),
        "gradient": float(f"{abs(found[1] - reference[1]) / reference[1]:.1e}"),
    }


def check(name: str, differences: dict[str, float], tolerance: float) -> None:
    """End with an error where a row computes something else."""
    if not max(differences.values()) <= tolerance:
        raise SystemExit(f"{name} is another function: relative differences {differences}")


def run_row(row: Row, turn: slice) -> dict[str, float]:
    """Steps on the batches of a turn, in what surrounds the row."""
    with row.context():
        return timed(row.step, row.batches[turn])
