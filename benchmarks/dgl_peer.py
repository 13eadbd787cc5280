"""Edge-list networks on PyG's and DGL's layers, for `backends.py`; imports no qm9flow.

    python benchmarks/dgl_peer.py FILE --rows pyg dgl --functions nnconv schnet

`backends.py` imports it for PyG, and runs it in a Python that has DGL, whose last wheels want a
torch of 2024. There it reads molecules, edges and weights from the `.npz` FILE, answers with a line
of JSON (what each network gives for the first batch, to be compared), and waits for orders, one a
line: `FUNCTION ROW START STOP`, for these batches. Answers are molecules, wall time and CPU time.

Both rows are the same function with the same weights. `nnconv`: rounds of `NNConv`, edge networks
with a weight on their hidden layer. `schnet`: PyG's own `InteractionBlock`; for DGL, whose `CFConv`
has one activation more and no cutoff, the same block on DGL's fused `u_mul_e_sum`.
"""

import argparse
import importlib.metadata
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TYPICAL_ATOMS = 18
"""What sums over atoms are divided by."""

Arrays = dict[str, np.ndarray]
Network = Callable[..., Tensor]


@dataclass
class Sizes:
    """Widths and depths of one function; `edge_width` counts for `nnconv` only."""

    layers: int
    hidden: int
    edge_width: int
    radial: int
    dense_layers: int
    elements: int
    targets: int
    cutoff_angstrom: float


@dataclass
class EdgeBatch:
    """Molecules as an edge list, sorted by destination.

    Attributes:
        numbers: (n,), atomic numbers.
        edge_index: (2, n_edges), source and destination.
        length: (n_edges,), angstrom.
        functions: (n_edges, R), Gaussians of the lengths.
        weight: (n_edges, 1), of `nnconv`'s messages.
        molecule: (n,), where an atom belongs.
        targets: (B, T).
        graph: What the layers take: `edge_index`, or the same as a framework's own class.
    """

    numbers: Tensor
    edge_index: Tensor
    length: Tensor
    functions: Tensor
    weight: Tensor
    molecule: Tensor
    targets: Tensor
    graph: Any = None


class Head(nn.Module):
    """Dense layers on each atom, summed over a molecule."""

    def __init__(self, sizes: Sizes) -> None:
        """Make the layers."""
        super().__init__()
        self.dense = dense_layers(sizes)

    def forward(self, hidden: Tensor, molecule: Tensor, count: int) -> Tensor:
        """(n, h) to (B, T)."""
        values = self.dense(hidden)
        sums = values.new_zeros(count, values.shape[1]).index_add(0, molecule, values)
        return sums / TYPICAL_ATOMS


def dense_layers(sizes: Sizes) -> nn.Sequential:
    """Dense layers with ReLU between, the last one to the targets."""
    stack: list[nn.Module] = []
    for _ in range(sizes.dense_layers - 1):
        stack += [nn.Linear(sizes.hidden, sizes.hidden), nn.ReLU()]
    return nn.Sequential(*stack, nn.Linear(sizes.hidden, sizes.targets))


class EdgeNetwork(nn.Sequential):
    """An edge's numbers to its matrix; the last number weighs the hidden layer and the bias."""

    def forward(self, edge_attr: Tensor) -> Tensor:
        """(n_edges, R + 1) to (n_edges, h * h)."""
        first, _, last = self
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        weight = edge_attr[:, -1:]
        phi = torch.cat([F.relu(first(edge_attr[:, :-1])) * weight, weight], dim=1)
        return phi @ torch.cat([last.weight, last.bias[:, None]], dim=1).t()


def edge_network(sizes: Sizes) -> EdgeNetwork:
    """With fresh weights."""
    return EdgeNetwork(
        nn.Linear(sizes.radial, sizes.edge_width),
        nn.ReLU(),
        nn.Linear(sizes.edge_width, sizes.hidden**2),
    )


def pyg_conv(sizes: Sizes) -> nn.Module:
    """PyG's `NNConv`."""
    from torch_geometric.nn.conv import NNConv

    conv: nn.Module = NNConv(sizes.hidden, sizes.hidden, edge_network(sizes), aggr="add")
    return conv


class DGLConv(nn.Module):
    """DGL's `NNConv` and the atom's own term, which DGL's has not with a matrix of its own."""

    def __init__(self, sizes: Sizes) -> None:
        """Make the layers, with PyG's names."""
        from dgl.nn.pytorch import NNConv

        super().__init__()
        self.nn = edge_network(sizes)
        self.lin = nn.Linear(sizes.hidden, sizes.hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(sizes.hidden))
        self.conv = NNConv(sizes.hidden, sizes.hidden, self.nn, "sum", bias=False)

    def forward(self, hidden: Tensor, graph: Any, edge_attr: Tensor) -> Tensor:
        """(n, h) to (n, h)."""
        own: Tensor = self.lin(hidden) + self.bias
        return own + self.conv(graph, hidden, edge_attr)


class NNConvNetwork(nn.Module):
    """Embedded elements, rounds of messages, dense layers, sum."""

    def __init__(self, sizes: Sizes, conv: Callable[[Sizes], nn.Module]) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Embedding(sizes.elements, sizes.hidden)
        self.convs = nn.ModuleList(conv(sizes) for _ in range(sizes.layers))
        self.readout = Head(sizes)

    def forward(self, batch: EdgeBatch) -> Tensor:
        """(B, T)."""
        edge_attr = torch.cat([batch.functions, batch.weight], dim=1)
        hidden: Tensor = self.embedding(batch.numbers)
        for conv in self.convs:
            hidden = hidden + F.relu(conv(hidden, batch.graph, edge_attr))
        pooled: Tensor = self.readout(hidden, batch.molecule, len(batch.targets))
        return pooled


def pyg_interaction(sizes: Sizes) -> nn.Module:
    """PyG's `InteractionBlock`."""
    from torch_geometric.nn.models.schnet import InteractionBlock

    block: nn.Module = InteractionBlock(
        sizes.hidden, sizes.radial, sizes.hidden, sizes.cutoff_angstrom
    )
    return block


class _Dense(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(hidden, hidden, bias=False)
        self.lin2 = nn.Linear(hidden, hidden)


class DGLInteraction(nn.Module):
    """PyG's `InteractionBlock` on DGL's fused message passing."""

    def __init__(self, sizes: Sizes) -> None:
        """Make the layers, with PyG's names."""
        super().__init__()
        h = sizes.hidden
        self.mlp = nn.Sequential(nn.Linear(sizes.radial, h), nn.Softplus(), nn.Linear(h, h))
        self.conv, self.lin = _Dense(h), nn.Linear(h, h)
        self.cutoff = sizes.cutoff_angstrom

    def forward(self, hidden: Tensor, graph: Any, length: Tensor, functions: Tensor) -> Tensor:
        """(n, h) to (n, h)."""
        from dgl.ops import u_mul_e_sum

        first, act, last = self.mlp
        weight = 0.5 * (torch.cos(length * math.pi / self.cutoff) + 1.0)
        filters = last(act(first(functions)) - math.log(2)) * weight[:, None]
        summed = self.conv.lin2(u_mul_e_sum(graph, self.conv.lin1(hidden), filters))
        added: Tensor = self.lin(F.softplus(summed) - math.log(2))
        return added


class SchNetNetwork(nn.Module):
    """Embedded elements, interactions, dense layers, sum."""

    def __init__(self, sizes: Sizes, block: Callable[[Sizes], nn.Module]) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Embedding(sizes.elements, sizes.hidden)
        self.interactions = nn.ModuleList(block(sizes) for _ in range(sizes.layers))
        self.readout = Head(sizes)

    def forward(self, batch: EdgeBatch) -> Tensor:
        """(B, T)."""
        hidden: Tensor = self.embedding(batch.numbers)
        for interaction in self.interactions:
            hidden = hidden + interaction(hidden, batch.graph, batch.length, batch.functions)
        pooled: Tensor = self.readout(hidden, batch.molecule, len(batch.targets))
        return pooled


NETWORKS: dict[tuple[str, str], Callable[[Sizes], nn.Module]] = {
    ("nnconv", "pyg"): lambda sizes: NNConvNetwork(sizes, pyg_conv),
    ("nnconv", "dgl"): lambda sizes: NNConvNetwork(sizes, DGLConv),
    ("schnet", "pyg"): lambda sizes: SchNetNetwork(sizes, pyg_interaction),
    ("schnet", "dgl"): lambda sizes: SchNetNetwork(sizes, DGLInteraction),
}


def load_weights(network: nn.Module, weights: Arrays) -> None:
    """Copy weights to parameters of the same names; every one must be there."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))


def dgl_graph(batch: EdgeBatch) -> Any:
    """The edge list as DGL has it."""
    import dgl

    graph = dgl.graph((batch.edge_index[0], batch.edge_index[1]), num_nodes=len(batch.numbers))
    graph.create_formats_()
    return graph


def train_step(network: Network, optimizer: torch.optim.Optimizer, batch: EdgeBatch) -> int:
    """Forward, backward, optimiser; gives the molecules seen."""
    optimizer.zero_grad(set_to_none=False)  # CUDA graphs need gradients that stay where they are
    (network(batch) - batch.targets).abs().mean().backward()
    optimizer.step()
    return len(batch.targets)


def gradient_norm(network: nn.Module) -> float:
    """Norm of all gradients."""
    norms = [p.grad.double().norm() for p in network.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def timed(step: Callable[[Any], int], batches: Sequence[Any]) -> dict[str, float]:
    """A step on each batch."""
    synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    molecules = sum(step(batch) for batch in batches)
    synchronize()
    return {
        "molecules": molecules,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def synchronize() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def read(data: Arrays, function: str, device: str) -> tuple[Sizes, Arrays, list[EdgeBatch]]:
    """What a FILE holds for one function: sizes, weights, batches."""
    sizes = Sizes(**json.loads(str(data[f"{function}/sizes"])))
    prefix = f"{function}/weights/"
    weights = {name.removeprefix(prefix): data[name] for name in data if name.startswith(prefix)}
    batches: list[EdgeBatch] = []
    while (start := f"{function}/{len(batches)}/") + "numbers" in data:
        fields = [name for name in EdgeBatch.__annotations__ if name != "graph"]
        tensors = {name: torch.from_numpy(data[start + name]).to(device) for name in fields}
        batches.append(EdgeBatch(**tensors, graph=tensors["edge_index"]))
    return sizes, weights, batches


def say(answer: dict[str, Any]) -> None:
    """One line to whoever asked."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Obey until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", nargs="+", choices=("pyg", "dgl"), default=["pyg", "dgl"])
    parser.add_argument("--functions", nargs="*", default=["nnconv", "schnet"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with np.load(options.file) as file:
        data = dict(file)
    steps: dict[tuple[str, str], tuple[Callable[[Any], int], list[EdgeBatch]]] = {}
    found = {}
    for function in options.functions:
        for row in options.rows:
            sizes, weights, batches = read(data, function, options.device)
            if row == "dgl":
                for batch in batches:
                    batch.graph = dgl_graph(batch)
            network = NETWORKS[function, row](sizes)
            load_weights(network, weights)
            network.to(options.device)
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
            output = network(batches[0])
            (output - batches[0].targets).abs().mean().backward()
            found[f"{function} {row}"] = {
                "output": output.tolist(),
                "gradient_norm": gradient_norm(network),
            }

            steps[function, row] = (partial(train_step, network, optimizer), batches)
    names = {"dgl": "dgl", "pyg": "torch_geometric"}
    versions = {names[row]: importlib.metadata.version(names[row]) for row in options.rows}
    say({"found": found, "versions": {**versions, "torch": torch.__version__}})
    for line in sys.stdin:
        function, row, start, stop = line.split()
        step, batches = steps[function, row]
        say(timed(step, batches[int(start) : int(stop)]))


if __name__ == "__main__":
    main()
