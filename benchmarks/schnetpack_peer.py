"""Times SchNetPack's PaiNN for `throughput.py`, in a Python of its own; imports no qm9flow.

    python benchmarks/schnetpack_peer.py FILE --threads 1 --batch-size 64

Reads molecules and targets from the `.npz` FILE and waits for orders, one a line: `train SECONDS`
or `predict SECONDS`. Answers each with a line of JSON: molecules, wall time, CPU time. So it can
take turns with others and is idle meanwhile.

The network is the one of SchNetPack's own QM9 recipe (PaiNN, Gaussians, cosine cutoff, `Atomwise`)
with ten outputs; neighbours are searched before any clock runs; loader and collation are
SchNetPack's.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.utils.data.dataloader as torch_loader

if not hasattr(torch_loader, "T_co"):  # SchNetPack 2.1.1 imports it; torch has moved it since
    torch_loader.T_co = TypeVar("T_co", covariant=True)  # type: ignore[attr-defined]

import schnetpack as spk
from schnetpack import properties
from schnetpack.atomistic import Atomwise, PairwiseDistances
from schnetpack.data.loader import AtomsLoader

OUTPUT = "targets"
Molecule = dict[str, torch.Tensor]


def molecules_of(file: Path, cutoff_angstrom: float) -> list[Molecule]:
    """One dictionary a molecule, as SchNetPack's data sets give it."""
    data = np.load(file)
    made = []
    for row, (start, end) in enumerate(zip(data["ptr"][:-1], data["ptr"][1:], strict=True)):
        positions = data["positions"][start:end]
        length = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        near = length < cutoff_angstrom
        np.fill_diagonal(near, val=False)
        i, j = (torch.from_numpy(index) for index in near.nonzero())
        made.append(
            {
                properties.idx: torch.tensor([row]),
                properties.n_atoms: torch.tensor([end - start]),
                properties.Z: torch.from_numpy(data["numbers"][start:end].astype(np.int64)),
                properties.R: torch.from_numpy(positions),
                properties.idx_i: i,
                properties.idx_j: j,
                properties.offsets: torch.zeros(len(i), 3),
                OUTPUT: torch.from_numpy(data["targets"][row : row + 1]),
            }
        )
    return made


def make_network(options: argparse.Namespace, outputs: int) -> torch.nn.Module:
    """PaiNN as in SchNetPack's recipe."""
    return spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            n_atom_basis=options.hidden,
            n_interactions=options.interactions,
            radial_basis=spk.nn.GaussianRBF(n_rbf=options.radial, cutoff=options.cutoff_angstrom),
            cutoff_fn=spk.nn.CosineCutoff(options.cutoff_angstrom),
        ),
        input_modules=[PairwiseDistances()],
        output_modules=[Atomwise(n_in=options.hidden, n_out=outputs, output_key=OUTPUT)],
    )


def endless(loader: AtomsLoader, device: str) -> Iterator[Molecule]:
    """Batches for ever, on the device."""
    while True:
        for batch in loader:
            yield {key: value.to(device) for key, value in batch.items()}


def main() -> None:
    """Obey until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--interactions", type=int, default=3)
    parser.add_argument("--radial", type=int, default=20)
    parser.add_argument("--cutoff-angstrom", type=float, default=5.0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    molecules = molecules_of(options.file, options.cutoff_angstrom)
    network = make_network(options, molecules[0][OUTPUT].shape[1]).to(options.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loader = AtomsLoader(molecules, batch_size=options.batch_size, shuffle=True)
    batches = endless(loader, options.device)

    def train() -> int:
        batch = next(batches)
        wanted = batch[OUTPUT]
        optimizer.zero_grad()
        found = network(batch)[OUTPUT]
        (found - wanted).abs().mean().backward()
        optimizer.step()
        return len(wanted)

    def predict() -> int:
        with torch.inference_mode():
            return len(network(next(batches))[OUTPUT])

    say(
        {
            "parameters": sum(p.numel() for p in network.parameters()),
            "versions": {
                name: importlib.metadata.version(name) for name in ("schnetpack", "torch")
            },
        }
    )
    for line in sys.stdin:
        what, seconds = line.split()
        network.train(what == "train")
        call = train if what == "train" else predict
        say(timed(call, float(seconds), options.device))


def timed(call: Any, seconds: float, device: str) -> dict[str, float]:
    """Repeat a step for some seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    molecules = 0
    while time.perf_counter() - wall < seconds:
        molecules += call()
    if device != "cpu":
        torch.cuda.synchronize()
    return {
        "molecules": molecules,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def say(answer: dict[str, Any]) -> None:
    """One line to whoever asked."""
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
