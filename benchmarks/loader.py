"""Molecules per second of one epoch: resident batches against PyTorch Geometric's DataLoader.

Both hold the same molecules with the same content (elements, positions, targets), shuffle them and
hand out batches of the same size, on the CPU, on one thread. Their epochs take turns, so that both
see the same load of the machine, and the quickest of each counts. The last line is JSON; `ratio`
is ours over theirs.

Example:
    python benchmarks/loader.py --molecules 20000 --batch-size 128
"""

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
import torch_geometric
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset


def pyg_loader(dataset: Dataset, indices: np.ndarray, targets: np.ndarray, size: int) -> DataLoader:
    """PyG's own loader over one `Data` a molecule, as its documentation shows it."""
    molecules = []
    for row, i in enumerate(indices):
        molecule = dataset.molecule(int(i))
        molecules.append(
            Data(
                z=torch.from_numpy(molecule.numbers),
                pos=torch.from_numpy(molecule.positions.astype(np.float32)),
                y=torch.from_numpy(targets[row : row + 1].astype(np.float32)),
            )
        )
    return DataLoader(molecules, batch_size=size, shuffle=True)


def quickest(
    epochs: dict[str, Callable[[], int]], molecules: int, repeats: int
) -> dict[str, float]:
    """Seconds of the quickest epoch of each, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(repeats + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            seen = epoch()
            taken[name].append(time.perf_counter() - start)
            if seen != molecules:
                raise SystemExit(f"an epoch of {name} held {seen} molecules, not {molecules}")
    return {name: min(seconds[1:]) for name, seconds in taken.items()}


def main() -> None:
    """Measure both loaders and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--molecules", type=int, default=20_000, help="how many (default 20000)")
    parser.add_argument("--batch-size", type=int, default=128, help="a step (default 128)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs timed (default 5)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    molecules, size = arguments.molecules, arguments.batch_size

    dataset = open_dataset()
    indices = make_split("standard").train[:molecules]
    targets = dataset.truth()[indices]
    resident = ResidentMolecules.load(dataset, indices, targets, "cpu")
    loader = pyg_loader(dataset, indices, targets, size)
    generator = torch.Generator().manual_seed(0)

    def ours() -> int:
        return sum(len(b.index) for step in resident.batches(size, generator) for b in step)

    def theirs() -> int:
        return sum(int(batch.num_graphs) for batch in loader)

    epochs = {"qm9flow": ours, "torch_geometric": theirs}
    taken = quickest(epochs, len(indices), arguments.repeats)
    rates = {name: len(indices) / seconds for name, seconds in taken.items()}
    ratio = rates["qm9flow"] / rates["torch_geometric"]
    print(
        f"{platform.machine()}, 1 thread, torch {torch.__version__}, "
        f"torch_geometric {torch_geometric.__version__}"
    )
    print(f"{len(indices):,} molecules, batches of {size}, quickest of {arguments.repeats} epochs")
    for name, rate in rates.items():
        print(f"{name:16}{rate:12,.0f} molecules/s")
    print(f"{'ratio':16}{ratio:12.1f}")
    facts = {
        "benchmark": "loader",
        "molecules": len(indices),
        "batch_size": size,
        "molecules_per_second": {name: round(rate) for name, rate in rates.items()},
        "ratio": round(ratio, 1),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
