"""One training step, forward and backward, of the same network in two ways, in turn.

    python benchmarks/nnconv.py

`mpnn` sums messages before it multiplies; `pyg_nnconv` is PyTorch Geometric's `NNConv`, which
builds an (h, h) matrix for each edge. Same molecules, same weights, same loss: that is checked.
With one thread, CPU time is compared, so that other work on the machine hardly matters. At the
defaults it takes a minute and 3 GB, nearly all of them `NNConv`'s. The last line is JSON: `ratio`
is the smallest of the ratios of molecules a second, one for each batch size.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from qm9flow.config import MPNNConfig, PyGNNConvConfig
from qm9flow.data.resident import Batch, ResidentMolecules
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.nn.catalog import build
from qm9flow.nn.contract import Network
from qm9flow.nn.messages import block_size
from qm9flow.properties import LEARNED
from qm9flow.training.allocator import keep_freed_memory

MAX_DIFFERENCE = 1e-4
"""Largest relative difference of losses that float32 may explain."""
FLOAT_BYTES = 4
ELEMENTS = 5


@dataclass
class Measured:
    """One network on one batch size.

    Attributes:
        molecules_per_second: Of the fastest step.
        multiply_adds: A molecule and step: the matrix products of all message-passing layers,
            forward and backward.
        kept_bytes: A batch: edge tensors kept from forward to backward, in all layers.
        temporary_bytes: A batch: the largest edge tensor that lives only inside a layer.
        loss: Of the first step.
        gradient_norm: Of the first step.
    """

    molecules_per_second: float
    multiply_adds: float
    kept_bytes: int
    temporary_bytes: int
    loss: float
    gradient_norm: float


def sizes_of(batches: Sequence[Batch], cutoff_angstrom: float) -> tuple[int, int, int, int]:
    """Molecules, padded atoms, padded pairs, and edges within the cutoff."""
    molecules = atoms = pairs = edges = 0
    for batch in batches:
        B, N = batch.numbers.shape
        real = batch.numbers > 0
        distance = torch.cdist(
            batch.positions, batch.positions, compute_mode="donot_use_mm_for_euclid_dist"
        )
        near = (distance < cutoff_angstrom) & real[:, :, None] & real[:, None, :]
        molecules += B
        atoms += B * N
        pairs += B * N * N
        edges += int(near.sum()) - int(real.sum())
    return molecules, atoms, pairs, edges


def count_mpnn(config: MPNNConfig, batches: Sequence[Batch]) -> tuple[float, int, int]:
    """Multiply-adds a molecule, bytes kept, bytes of the largest temporaries."""
    molecules, atoms, pairs, _ = sizes_of(batches, config.cutoff_angstrom)
    h, K, E = config.hidden, config.edge_width + 1, config.radial + 1
    total = 0
    for layer in range(config.conv_layers):
        c = ELEMENTS if layer == 0 else h
        phi = 3 * pairs * K * E  # forward, made again, gradient of the weights
        sums = (3 if layer == 0 else 4) * pairs * K * c  # also gradients of phi and features
        matrices = 3 * atoms * K * c * h  # forward, gradients of sums and of the matrices
        root = 3 * atoms * c * h
        total += phi + sums + matrices + root
    kept = FLOAT_BYTES * pairs * E  # one tensor for all layers
    blocks = 0
    for batch in batches:
        N = batch.numbers.shape[1]
        size = block_size(batch.positions, N, K, h)
        blocks = max(blocks, size * N * K * (2 * N + h) * FLOAT_BYTES)
    return total / molecules, kept, blocks


def count_nnconv(config: MPNNConfig, batches: Sequence[Batch]) -> tuple[float, int, int]:
    """Multiply-adds a molecule, bytes kept, bytes of the largest temporary."""
    molecules, atoms, _, edges = sizes_of(batches, config.cutoff_angstrom)
    h, K, R = config.hidden, config.edge_width, config.radial
    first = 2 * edges * R * K  # forward, gradient of the weights
    last = 3 * edges * (K + 1) * h * h  # forward, gradients of both
    messages = 3 * edges * h * h
    root = 3 * atoms * h * h
    matrices = FLOAT_BYTES * h * h * edges
    total = config.conv_layers * (first + last + messages + root)
    return total / molecules, config.conv_layers * matrices, matrices


def step(network: Network, batches: Sequence[Batch]) -> float:
    """One training step without the optimiser."""
    network.zero_grad(set_to_none=False)
    count = sum(len(batch.index) for batch in batches)
    total = 0.0
    for batch in batches:
        error = network(batch.numbers, batch.positions) - batch.targets
        loss = error.square().mean(dim=1).sum() / count
        loss.backward()
        total += loss.item()
    return total


def gradient_norm(network: Network) -> float:
    """Norm of all gradients."""
    norms = [p.grad.double().norm() for p in network.parameters() if p.grad is not None]
    return float(torch.stack(norms).norm())


def fastest(
    networks: dict[str, Network], batches: Sequence[Batch], seconds: float
) -> dict[str, float]:
    """Seconds of the fastest step of each network, in turn until the time is spent."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    best = dict.fromkeys(networks, float("inf"))
    for name, network in networks.items():
        end = time.perf_counter() + seconds
        rounds = 0
        while rounds < 2 or time.perf_counter() < end:
            start = clock()
            step(network, batches)
            best[name] = min(best[name], clock() - start)
            rounds += 1
    return best


def measure(
    config: MPNNConfig, molecules: ResidentMolecules, batch_size: int, seconds: float
) -> dict[str, Measured]:
    """Both networks on one batch."""
    generator = torch.Generator().manual_seed(0)
    batches = next(iter(molecules.batches(batch_size, generator)))
    networks = {}
    for name, kind in (("mpnn", MPNNConfig), ("pyg_nnconv", PyGNNConvConfig)):
        torch.manual_seed(0)
        networks[name] = build(kind(**asdict(config)), LEARNED)
    losses = {name: step(network, batches) for name, network in networks.items()}  # warm-up
    norms = {name: gradient_norm(network) for name, network in networks.items()}
    best = fastest(networks, batches, seconds)
    counts = {"mpnn": count_mpnn(config, batches), "pyg_nnconv": count_nnconv(config, batches)}
    return {
        name: Measured(batch_size / best[name], *counts[name], losses[name], norms[name])
        for name in networks
    }


def show(batch_size: int, measured: dict[str, Measured]) -> None:
    """Print what was measured."""
    print(f"\nbatch of {batch_size}")
    for name, item in measured.items():
        print(
            f"  {name:10} {item.molecules_per_second:8.1f} molecules/s"
            f"  {item.multiply_adds / 1e6:8.1f} million multiply-adds a molecule"
            f"  {item.kept_bytes / 1e6:8.1f} MB kept"
            f"  {item.temporary_bytes / 1e6:8.1f} MB temporary"
            f"  loss {item.loss:.7f}  |gradient| {item.gradient_norm:.5f}"
        )


def difference(measured: dict[str, Measured], what: str) -> float:
    """Relative difference of the two networks."""
    ours, theirs = (getattr(measured[name], what) for name in ("mpnn", "pyg_nnconv"))
    return abs(ours - theirs) / abs(theirs)


def load(dataset: Dataset, count: int) -> ResidentMolecules:
    """Random molecules with random targets: speed does not depend on them."""
    generator = np.random.default_rng(0)
    indices = generator.choice(len(dataset), size=count, replace=False)
    return ResidentMolecules.load(
        dataset, indices, generator.normal(size=(count, len(LEARNED))), "cpu"
    )


def main() -> None:
    """Measure, print, and end with an error if the two networks disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128], metavar="N")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--edge-width", type=int, default=64)
    parser.add_argument("--conv-layers", type=int, default=4)
    parser.add_argument("--fc-layers", type=int, default=4)
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="for each network and batch size (15)"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    config = MPNNConfig(
        conv_layers=options.conv_layers,
        fc_layers=options.fc_layers,
        hidden=options.hidden,
        edge_width=options.edge_width,
    )
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {config}")
    molecules = load(open_dataset(), max(options.batch_sizes) * 4)
    ratios, report = [], {}
    for batch_size in options.batch_sizes:
        measured = measure(config, molecules, batch_size, options.seconds)
        show(batch_size, measured)
        differences = {what: difference(measured, what) for what in ("loss", "gradient_norm")}
        ratio = measured["mpnn"].molecules_per_second / measured["pyg_nnconv"].molecules_per_second
        print(
            f"  ratio {ratio:.1f}, relative difference of losses {differences['loss']:.1e}, "
            f"of gradient norms {differences['gradient_norm']:.1e}"
        )
        if max(differences.values()) > MAX_DIFFERENCE:
            raise SystemExit(f"the two networks differ by more than {MAX_DIFFERENCE}")
        ratios.append(ratio)
        report[str(batch_size)] = {
            "ratio": ratio,
            "difference": differences,
            **{name: asdict(item) for name, item in measured.items()},
        }
    print()
    line = {"benchmark": "nnconv", "ratio": min(ratios), "threads": options.threads}
    print(json.dumps({**line, "batches": report}))


if __name__ == "__main__":
    main()
