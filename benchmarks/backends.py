"""One training step on several backends: edge lists on PyG and DGL, dense groups, compiled or not.

    python benchmarks/backends.py
    python benchmarks/backends.py --dgl-python work/dgl/bin/python
    python benchmarks/backends.py --device cuda --steps 50

Two functions, `nnconv` (the network of `mpnn`) and `schnet`, each with the weights of ours, on the
same molecules in the same batches, with the same dense layers and sum over atoms at the end. A step
is forward, mean absolute error, backward, Adam. Outputs and gradients of the first batch are
compared before any clock runs; the benchmark ends with an error if they differ. Then all take
turns, `--repeats` times, and medians count: CPU time of the process on a CPU, which other work on
the machine hardly touches, wall time on a GPU. Each turn has batches of its own, as a training has:
on the same few again and again, whatever is kept for a shape looks better than it is. Edge lists
lie ready with lengths and Gaussians, dense groups make theirs within the step. A third function,
`density`, is the flagship as it is configured, which neither PyG nor DGL has. The last line is
JSON. `docs/backends.md` has figures and what follows from them.

| row | what |
| --- | --- |
| pyg | PyG's layers on edge lists, messages summed by `scatter_add_` |
| pyg sorted | the same on an `EdgeIndex` sorted by destination, summed by segments |
| pyg torch_scatter | as sorted, with the compiled `segment_csr` of torch_scatter |
| pyg compiled | `torch.compile(dynamic=True)` |
| dense | ours: groups of similar size, batched matrix products, no scatter |
| dense compiled | the same through `torch.compile(dynamic=True)`, as `TrainConfig.compile` does |
| dense bf16 | matrix products in bfloat16, through autocast |
| dense tf32, pyg tf32 | matrix products in TF32; GPU |
| dense graphs, pyg graphs | CUDA graphs: `torch.compile(mode="reduce-overhead")`; GPU |
| dgl, pyg there | DGL's `NNConv` and message passing; PyG in the same Python, on the same torch |

DGL's wheels ask for an old torch, so another Python runs it:

    python3.11 -m venv work/dgl
    work/dgl/bin/pip install torch==2.2.1 dgl==2.1.0 torch_geometric==2.8.1 'numpy<2' \\
        torchdata==0.7.1 pandas pydantic pyyaml

Whatever is not installed, or cannot run on the device, is left out with a line that says why.
"""

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
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
from peers import FLAGSHIP, Clock, installed, machine, note, peer_environment
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from qm9flow.config import MPNNConfig, SchNetConfig
from qm9flow.data.resident import Batch, ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import open_dataset
from qm9flow.elements import MAX_NUMBER
from qm9flow.nn.catalog import build
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GaussianBasis, message_weight
from qm9flow.nn.schnet import SchNet
from qm9flow.properties import LEARNED
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.device import pick_device

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
PEER_ROWS = {"pyg there": "pyg", "dgl": "dgl"}
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
        pooled: Tensor = self.readout(self.network.represent(numbers, positions), numbers > 0)
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


class Peer:
    """DGL and PyG in another Python, which waits between turns."""

    def __init__(self, options: argparse.Namespace, steps: Sequence[Groups], folder: Path) -> None:
        """Write what it needs and start it."""
        functions = [function for function in options.functions if function in COMPARED]
        np.savez(folder / "backends.npz", **for_peer(functions, steps))
        command = [
            options.dgl_python,
            str(Path(__file__).parent / "dgl_peer.py"),
            str(folder / "backends.npz"),
            f"--threads={options.threads}",
            f"--device={pick_device(options.device).type}",
            "--functions",
            *functions,
        ]
        pipe = subprocess.PIPE
        environment = {**peer_environment(options.threads), "DGLBACKEND": "pytorch"}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        about = self._answer()
        self.versions: dict[str, str] = about["versions"]
        self.found = {
            name: (np.array(of["output"]), float(of["gradient_norm"]))
            for name, of in about["found"].items()
        }

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the process with DGL ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, function: str, row: str, turn: slice) -> dict[str, float]:
        """Steps on the batches of a turn."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{function} {row} {turn.start} {turn.stop}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def for_peer(functions: Sequence[str], steps: Sequence[Groups]) -> dict[str, Any]:
    """What `dgl_peer.py` reads."""
    data: dict[str, Any] = {}
    for function in functions:
        data[f"{function}/sizes"] = json.dumps(asdict(SIZES[function]))
        for name, values in weights_of(make_dense(function)).items():
            data[f"{function}/weights/{name}"] = values
        for number, groups in enumerate(steps):
            for name, tensor in vars(as_edges(groups, function)).items():
                if name != "graph":
                    data[f"{function}/{number}/{name}"] = tensor.cpu().numpy()
    return data


def run_row(row: Row, turn: slice) -> dict[str, float]:
    """Steps on the batches of a turn, in what surrounds the row."""
    with row.context():
        return timed(row.step, row.batches[turn])


Turn = Callable[[slice], dict[str, float]]


def take_turns(turns: dict[str, Turn], options: argparse.Namespace) -> dict[str, list[float]]:
    """Molecules a second of each, turn after turn."""
    kind = "seconds" if pick_device(options.device).type == "cuda" else "cpu_seconds"
    rates: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(options.repeats + 1):  # the first one warms up
        batches = slice(number * options.steps, (number + 1) * options.steps)
        for name, turn in turns.items():
            measured = turn(batches)
            if number:
                rates[name].append(measured["molecules"] / max(measured[kind], 1e-9))
        note(f"turn {number} of {options.repeats}")
    return rates


def measure(
    function: str,
    options: argparse.Namespace,
    steps: Sequence[Groups],
    peer: Peer | None,
    left_out: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """All rows of one function."""
    device = pick_device(options.device)
    is_compared = function in COMPARED
    edges = [as_edges(groups, function) for groups in steps] if is_compared else []
    reference = first_step(make_row(function, "dense", steps, edges, device))
    turns: dict[str, Turn] = {}
    report: dict[str, dict[str, Any]] = {}
    for name in options.rows:
        if not is_compared and not name.startswith("dense"):
            continue
        reason = obstacle(name, device)
        if reason is not None:
            left_out[name] = reason
            continue
        clock = Clock()
        row = make_row(function, name, steps, edges, device)
        try:
            differences = difference(first_step(row), reference)
            check(f"{function}, {name}", differences, row.tolerance)
            run_row(row, slice(0, options.steps))
        except RuntimeError as error:  # of the compiler, or memory: a row less, not a run less
            left_out[f"{function}, {name}"] = str(error).strip().splitlines()[0][:200]
            continue
        report[name] = {"difference": differences, "ready_seconds": round(clock.seconds, 1)}
        turns[name] = partial(run_row, row)
    for name, row_name in PEER_ROWS.items() if is_compared else ():
        if peer is None:
            break
        differences = difference(peer.found[f"{function} {row_name}"], reference)
        check(f"{function}, {name}", differences, EXACT)
        report[name] = {"difference": differences}
        turns[name] = partial(peer.run, function, row_name)
    first = 0.0
    for name, rates in take_turns(turns, options).items():
        rate = median(rates)
        first = first or rate
        report[name] |= {
            "molecules_per_second": round(rate, 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
            "times_first": round(rate / first, 2),
        }
    return report


def show(function: str, report: dict[str, dict[str, Any]]) -> None:
    """Print one function's rows."""
    print(f"\n{function:18}{'molecules/s':>12}{'range':>18}{'x first':>9}   differences")
    for name, of in report.items():
        span = f"{of['lowest']:,.0f} to {of['highest']:,.0f}"
        differences = ", ".join(f"{value:.0e}" for value in of["difference"].values())
        ready = f"   ready after {of['ready_seconds']} s" if "ready_seconds" in of else ""
        print(
            f"{name:18}{of['molecules_per_second']:12,.0f}{span:>18}{of['times_first']:9}"
            f"   {differences}{ready}"
        )


def parse() -> argparse.Namespace:
    """Options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--batch-size", type=int, default=64, help="molecules a step (64)")
    parser.add_argument("--steps", type=int, default=4, help="batches of a turn (4)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--functions", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--dgl-python", default=sys.executable, metavar="PATH")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    device = pick_device(options.device)
    n_steps = options.steps * (options.repeats + 1)
    chosen = make_split("standard").train[: options.batch_size * n_steps]
    targets = np.random.default_rng(0).normal(size=(len(chosen), len(LEARNED)))
    molecules = ResidentMolecules.load(open_dataset(), chosen, targets, device)
    generator = torch.Generator().manual_seed(0)
    steps = list(molecules.batches(options.batch_size, generator))
    facts, left_out = machine(options.threads), {}
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if installed(options.dgl_python, "dgl") is None:
            left_out["dgl"] = f"{options.dgl_python} has none (see --help)"
        else:
            peer = Peer(options, steps, Path(folder))
            facts["there"] = peer.versions
        for function in options.functions:
            reports[function] = measure(function, options, steps, peer, left_out)
            show(function, reports[function])
        if peer is not None:
            peer.close()
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}")
    line = {
        "benchmark": "backends",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "clock": "wall" if device.type == "cuda" else "cpu",
        "batch_size": options.batch_size,
        "steps": options.steps,
        "repeats": options.repeats,
        "rows": reports,
        "left_out": left_out,
        **facts,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
