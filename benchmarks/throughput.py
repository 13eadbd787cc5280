"""Molecules a second, trained and predicted: each architecture of ours beside its peers.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --threads 2 --batch-size 64 --seconds 5 --repeats 7

Everybody takes turns in one run, `--repeats` times; medians count. Wall time decides; CPU time of
the process, which other work on the machine hardly touches, is given beside it, and the ratios in
both. The last line is JSON.

| contestant | what |
| --- | --- |
| density | our flagship, as in `peers.FLAGSHIP` |
| painn, schnet, mpnn | ours with their defaults |
| pyg_schnet | PyG's `SchNet` of the width and depth of our `schnet` |
| pyg_nnconv | a network on PyG's `NNConv` of the width and depth of our `mpnn` (`peers.py`) |
| schnetpack_painn | SchNetPack's PaiNN of the width and depth of our `painn` |

Training is all of it: batches, forward, backward, optimiser. Ours is `fit` with its default monitor
and averaged weights, on batches that lie in memory; theirs the usual loop over PyG's `DataLoader`
or SchNetPack's, with Adam, whose molecules lie in memory with all neighbours found beforehand.
Prediction: ours in batches of similar size as `qm9flow.training.predict` makes them, theirs through
their loaders. The process keeps freed memory, to the good of PyG's networks too.

SchNetPack 2.1.1 asks for a sympy that torch does not take, so it is run by another Python and left
out, with a line that says so, where there is none:

    python -m venv work/peers
    work/peers/bin/pip install torch==2.13.0 chemprop==2.3.1  # chemprop: for accuracy_per_minute.py
    work/peers/bin/pip install ase h5py hydra-core hydra-colorlog fasteners dirsync torch-ema \\
        matscipy pytorch-lightning torchmetrics rich tensorboard tensorboardX
    work/peers/bin/pip install --no-deps schnetpack==2.1.1
    python benchmarks/throughput.py --schnetpack-python work/peers/bin/python
"""

import argparse
import json
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peers import (
    FLAGSHIP,
    Clock,
    Floats,
    NNConvPeer,
    Peer,
    SchNetPeer,
    endless,
    installed,
    machine,
    make_peer,
    note,
    peer_data,
    peer_environment,
    train_step,
)
from torch_geometric.loader import DataLoader

from qm9flow.config import MPNNConfig, PaiNNConfig, SchNetConfig, TrainConfig
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.device import pick_device
from qm9flow.training.events import EpochEnded
from qm9flow.training.fit import fit
from qm9flow.training.predict import predict_resident

ADAM = replace(FLAGSHIP, optimizer="adam", learning_rate=1e-3, weight_decay=0.0)
SCHNET, PAINN, MPNN = SchNetConfig(), PaiNNConfig(), MPNNConfig()
OURS: dict[str, TrainConfig] = {
    "density": FLAGSHIP,
    "painn": replace(ADAM, model=PAINN),
    "schnet": replace(ADAM, model=SCHNET),
    "mpnn": replace(ADAM, model=MPNN),
}
PYG: dict[str, Peer] = {
    "pyg_schnet": SchNetPeer(
        SCHNET.hidden, SCHNET.interactions, SCHNET.radial, SCHNET.cutoff_angstrom
    ),
    "pyg_nnconv": NNConvPeer(
        MPNN.hidden, MPNN.edge_width, MPNN.conv_layers, MPNN.radial, MPNN.cutoff_angstrom
    ),
}
SCHNETPACK = "schnetpack_painn"
PEER_OF = {"painn": SCHNETPACK, "schnet": "pyg_schnet", "mpnn": "pyg_nnconv"}
"""Which peer has an architecture's width and depth."""

Measured = dict[str, float]


class Contestant(ABC):
    """Somebody who trains or predicts for a while when told to."""

    parameters: int

    @abstractmethod
    def train(self, seconds: float) -> Measured:
        """Train: `molecules`, `seconds`, `cpu_seconds`."""

    @abstractmethod
    def predict(self, seconds: float) -> Measured:
        """Predict, likewise."""


def repeat(call: Callable[[], int], seconds: float, device: torch.device) -> Measured:
    """Repeat a call that gives the molecules it saw."""
    clock, molecules = Clock(), 0
    while clock.seconds < seconds:
        molecules += call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"molecules": molecules, "seconds": clock.seconds, "cpu_seconds": clock.cpu_seconds}


class Ours(Contestant):
    """A network of the catalogue."""

    def __init__(
        self, config: TrainConfig, options: argparse.Namespace, dataset: Dataset, chosen: np.ndarray
    ) -> None:
        """Start a training, which waits between turns."""
        self.device = pick_device(options.device)
        config = replace(
            config,
            batch_size=options.batch_size,
            train_size=options.epoch,
            val_size=1,
            schedule="constant",
            max_epochs=100_000,
            checkpoint_every=100_000,
            device=options.device,
            threads=options.threads,
            compile=options.compile,
        )
        self.epoch_molecules = options.epoch
        self.stream = fit(config, dataset)
        next(self.stream)
        self.network = build(config.model, LEARNED).to(self.device).eval()
        self.molecules = ResidentMolecules.load(dataset, chosen, None, self.device)
        self.parameters = sum(p.numel() for p in self.network.parameters())

    def _epoch(self) -> int:
        event = next(self.stream)
        if not isinstance(event, EpochEnded):
            raise SystemExit(f"a training went wrong: {event}")
        return self.epoch_molecules

    def train(self, seconds: float) -> Measured:
        """Whole epochs of `fit`, at least one."""
        return repeat(self._epoch, seconds, self.device)

    def _all(self) -> int:
        predict_resident(self.network, self.molecules, len(LEARNED))
        return len(self.molecules)

    def predict(self, seconds: float) -> Measured:
        """All molecules, as often as there is time."""
        return repeat(self._all, seconds, self.device)


class Theirs(Contestant):
    """A network of PyG's."""

    def __init__(
        self,
        peer: Peer,
        options: argparse.Namespace,
        dataset: Dataset,
        chosen: np.ndarray,
        targets: Floats,
    ) -> None:
        """Make the network and its loader."""
        self.device = pick_device(options.device)
        self.network = make_peer(peer).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        data = peer_data(dataset, chosen, targets, peer.cutoff_angstrom)
        loader = DataLoader(data, batch_size=options.batch_size, shuffle=True)
        self.batches = endless(loader, self.device)
        self.parameters = sum(p.numel() for p in self.network.parameters())

    def _step(self) -> int:
        return train_step(self.network, self.optimizer, next(self.batches), None)

    def train(self, seconds: float) -> Measured:
        """Steps of PyG's usual loop."""
        self.network.train()
        return repeat(self._step, seconds, self.device)

    def _batch(self) -> int:
        batch = next(self.batches)
        with torch.inference_mode():
            self.network(batch)
        return int(batch.num_graphs)

    def predict(self, seconds: float) -> Measured:
        """Batches without gradients."""
        self.network.eval()
        return repeat(self._batch, seconds, self.device)


class SchNetPack(Contestant):
    """SchNetPack's PaiNN, in a process that waits between turns."""

    def __init__(
        self,
        options: argparse.Namespace,
        dataset: Dataset,
        chosen: np.ndarray,
        targets: Floats,
        folder: Path,
    ) -> None:
        """Write the molecules and start the process."""
        atoms = np.concatenate([np.arange(dataset.ptr[i], dataset.ptr[i + 1]) for i in chosen])
        np.savez(
            folder / "molecules.npz",
            numbers=dataset.numbers[atoms],
            positions=dataset.positions[atoms],
            ptr=np.concatenate([[0], np.cumsum(dataset.sizes[chosen])]),
            targets=targets.astype(np.float32),
        )
        command = [
            options.schnetpack_python,
            str(Path(__file__).parent / "schnetpack_peer.py"),
            str(folder / "molecules.npz"),
            f"--threads={options.threads}",
            f"--batch-size={options.batch_size}",
            f"--hidden={PAINN.hidden}",
            f"--interactions={PAINN.interactions}",
            f"--radial={PAINN.radial}",
            f"--cutoff-angstrom={PAINN.cutoff_angstrom}",
            f"--device={pick_device(options.device).type}",
        ]
        environment = peer_environment(options.threads)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment
        )
        about = self._answer()
        self.parameters, self.versions = int(about["parameters"]), about["versions"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"SchNetPack's process ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _order(self, what: str, seconds: float) -> Measured:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {seconds}\n")
        self.process.stdin.flush()
        return self._answer()

    def train(self, seconds: float) -> Measured:
        """Steps over SchNetPack's loader."""
        return self._order("train", seconds)

    def predict(self, seconds: float) -> Measured:
        """Batches without gradients."""
        return self._order("predict", seconds)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def take_turns(
    contestants: dict[str, Contestant], options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Median rates of each: molecules a second of wall time and of CPU time."""
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(options.repeats + 1):  # the first one warms up
        for name, contestant in contestants.items():
            for what, call in (("train", contestant.train), ("predict", contestant.predict)):
                measured = call(options.seconds if turn else options.seconds / 4)
                if turn == 0:
                    continue
                for kind in ("seconds", "cpu_seconds"):
                    rate = measured["molecules"] / max(measured[kind], 1e-9)
                    key = what if kind == "seconds" else f"{what}_cpu"
                    rates.setdefault(name, {}).setdefault(key, []).append(rate)
        note(f"turn {turn} of {options.repeats}")
    return {name: {key: median(values) for key, values in of.items()} for name, of in rates.items()}


def ratios(rates: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Ours over the peer of the same width and depth."""
    return {
        f"{ours} / {peer}": {
            key: round(rates[ours][key] / rates[peer][key], 2) for key in rates[ours]
        }
        for ours, peer in PEER_OF.items()
        if ours in rates and peer in rates
    }


def main() -> None:
    """Measure and print."""
    names = (*OURS, *PYG, SCHNETPACK)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1)")
    parser.add_argument("--batch-size", type=int, default=64, help="molecules a step (64)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn (3)")
    parser.add_argument("--repeats", type=int, default=5, help="turns that count (5)")
    parser.add_argument("--molecules", type=int, default=4096, help="that are drawn from (4096)")
    parser.add_argument("--epoch", type=int, default=1024, help="molecules of our epochs (1024)")
    parser.add_argument("--only", nargs="+", choices=names, default=list(names))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile ours"
    )
    parser.add_argument("--schnetpack-python", default=sys.executable, metavar="PATH")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    dataset = open_dataset()
    chosen = make_split("standard").train[: options.molecules]
    targets = np.random.default_rng(0).normal(size=(len(chosen), len(LEARNED)))
    contestants: dict[str, Contestant] = {
        name: Ours(config, options, dataset, chosen)
        for name, config in OURS.items()
        if name in options.only
    }
    for name, peer in PYG.items():
        if name in options.only:
            contestants[name] = Theirs(peer, options, dataset, chosen, targets)
    facts = machine(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        packed = None
        if SCHNETPACK in options.only:
            if installed(options.schnetpack_python, "schnetpack") is None:
                print(f"SchNetPack is left out: {options.schnetpack_python} has none (see --help)")
            else:
                packed = SchNetPack(options, dataset, chosen, targets, Path(folder))
                contestants[SCHNETPACK] = packed
                facts["schnetpack"] = packed.versions
        rates = take_turns(contestants, options)
        if packed is not None:
            packed.close()
    print(f"{'molecules a second':18}{'train':>10}{'predict':>10}   of CPU time: train   predict")
    for name, of in rates.items():
        print(
            f"{name:18}{of['train']:10,.0f}{of['predict']:10,.0f}"
            f"{of['train_cpu']:21,.0f}{of['predict_cpu']:10,.0f}"
            f"   {contestants[name].parameters:,} parameters"
        )
    compared = ratios(rates)
    for pair, by in compared.items():
        print(f"{pair:28}" + ", ".join(f"{key} {value:.1f}" for key, value in by.items()))
    line = {
        "benchmark": "throughput",
        "device": str(pick_device(options.device)),
        "batch_size": options.batch_size,
        "molecules_per_second": {
            name: {key: round(value, 1) for key, value in of.items()} for name, of in rates.items()
        },
        "parameters": {name: of.parameters for name, of in contestants.items()},
        "ratios": compared,
        **facts,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
