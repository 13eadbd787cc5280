"""Accuracy that a given time buys on two cores: ours, PyTorch Geometric's networks, chemprop.

    python benchmarks/accuracy_per_minute.py --minutes 20 --out work/accuracy

Each contestant trains for the same wall time on the same number of threads and the same 110,000
molecules of the split `standard`, one after another, each in a process of its own; then all predict
the same 10,000 validation molecules of that split. Printed: mean absolute errors of the twelve
targets of the literature in physical units (gap and h derived from learned targets, for all
alike), the best peer's error over ours for each, the number of targets we lead; the last line is
JSON. Nothing looks at a test molecule.

| contestant | what | recipe |
| --- | --- | --- |
| density | our flagship | `peers.FLAGSHIP` |
| mpnn | our twin of the group's `NNConv` network | the same, with Adam at 1e-3 |
| schnet | PyG's `SchNet`, sized for a short time: 64 wide, 4 interactions, 5 angstrom | as below |
| nnconv | PyG's `NNConv` example, sized likewise: 32 wide, edge width 32 | as below |
| schnet_default | PyG's `SchNet` with PyG's defaults (128 wide, 6, 10 angstrom) | as below |
| nnconv_default | PyG's `NNConv` example as it is (64 wide, edge width 128) | as below |
| chemprop | from SMILES, with its defaults (`chemprop_peer.py`) | its own |

`*_default` run only when named with `--only`: in a short time they see too few molecules.

What is the same for all: targets (ten at once, composition references and the nuclear part of r2
taken off, divided by their standard deviations: `qm9flow.targets.TargetCodec` fitted on the
training molecules); choice of the best epoch by the first 2,000 validation molecules, inside the
time (but for chemprop's last judgement, which comes after it); a schedule that ends with the time;
threads of torch; glibc told to keep freed memory. What is not counted, for anybody: reading
molecules, making graphs, searching neighbours (done once, kept in memory) and the final prediction.
Peers of PyG: Adam at the best of four rates (`RATES`), cosine, batch 64, mean absolute error with
the same weights of the targets, and the gap beside them, as our flagship's (`--peer-weighting
equal` leaves them out); no averaged weights, no clipping, no grouping by size: these are ours.
Rate, batch size and weighting of PyG's and the loss of chemprop can be changed, so that a doubter
can look for better ones.

chemprop is run by another Python, since it holds rdkit at a version older than ours:

    python -m venv work/peers && work/peers/bin/pip install torch==2.13.0 chemprop==2.3.1
    python benchmarks/accuracy_per_minute.py --chemprop-python work/peers/bin/python

Without it chemprop is left out, with a line that says so. Results lie in `--out`, one file a
contestant: run again after a cut, and those that are there with the same options, of the same
commit, machine and versions, are kept. Each has the load of the machine before and after it.
"""

import argparse
import json
import math
import subprocess
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path
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
    load,
    machine,
    make_peer,
    note,
    peer_data,
    peer_environment,
    peer_settings,
    predict_peer,
    train_step,
)
from safetensors.torch import load as load_weights
from torch_geometric.loader import DataLoader

from qm9flow import properties
from qm9flow.config import MPNNConfig, TrainConfig, to_dict
from qm9flow.data.resident import ResidentMolecules
from qm9flow.data.splits import Split, make_split
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.evaluation.literature import REPORTED
from qm9flow.nn.catalog import build
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.targets import TargetCodec
from qm9flow.tracking import provenance
from qm9flow.training.allocator import keep_freed_memory
from qm9flow.training.events import EpochEnded, Failed, Finished, Started
from qm9flow.training.fit import fit
from qm9flow.training.losses import compared
from qm9flow.training.metrics import all_targets, mean_absolute_errors, training_codec
from qm9flow.training.predict import predict_resident

OURS = {
    "density": FLAGSHIP,
    "mpnn": replace(
        FLAGSHIP, model=MPNNConfig(), optimizer="adam", learning_rate=1e-3, weight_decay=0.0
    ),
}
PEERS: dict[str, Peer] = {
    "schnet": SchNetPeer(hidden=64, interactions=4, radial=32, cutoff_angstrom=5.0),
    "nnconv": NNConvPeer(hidden=32, edge_width=32, steps=3, radial=32, cutoff_angstrom=5.0),
    "schnet_default": SchNetPeer(),
    "nnconv_default": NNConvPeer(),
}
RATES = {"schnet": 6e-3, "nnconv": 1.2e-2}
"""Adam's rate of PyG's networks: the best of 1e-3, 3e-3, 6e-3 and 1.2e-2 after seven minutes of one
core each (`docs/models.md`, "Peers")."""
USUAL_RATE = 1e-3
"""The rate of PyG's examples."""
CONTESTANTS = (*OURS, *PEERS, "chemprop")
USUAL = ("density", "mpnn", "schnet", "nnconv", "chemprop")
JUDGED = 2000
"""Validation molecules that choose an epoch, during training."""
PREDICTED_AT_ONCE = 128
"""Molecules of a peer's batch without gradients."""
TOLD_EVERY = 60.0
"""Seconds between two lines of progress inside a peer's epoch."""
FAR = 2.0
"""A lead of this factor is counted apart."""


class Task:
    """What all contestants are given."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Note the options; molecules are loaded when they are asked for."""
        self.options = options
        self.train_config = replace(FLAGSHIP, train_size=options.train_size)

    @cached_property
    def dataset(self) -> Dataset:
        """All molecules."""
        return open_dataset()

    @cached_property
    def split(self) -> Split:
        """`standard`."""
        return make_split("standard")

    @cached_property
    def codec(self) -> TargetCodec:
        """Between physical values and what is learned."""
        return training_codec(self.train_config, self.dataset, self.split)

    @cached_property
    def train(self) -> np.ndarray:
        """Training molecules."""
        return self.split.first_train(self.options.train_size)

    @property
    def validation(self) -> np.ndarray:
        """Validation molecules."""
        return self.split.validation[: self.options.val_size]

    def encoded(self, indices: np.ndarray) -> Floats:
        """(n, 10), what is learned."""
        learned = self.dataset.truth()[indices][:, [TARGETS.index(name) for name in LEARNED]]
        counts, extents = self.dataset.counts()[indices], self.dataset.extents[indices]
        return self.codec.encode(counts, extents, learned)

    def smiles(self, indices: np.ndarray) -> np.ndarray:
        """(n,), texts of the tables."""
        return np.array([self.dataset.smiles(int(i)) for i in indices])

    def errors(self, predicted: Floats) -> dict[str, float]:
        """Mean absolute errors of the reported targets, from encoded predictions."""
        indices = self.validation
        counts = self.dataset.counts()[indices]
        values = self.codec.decode(counts, self.dataset.extents[indices], predicted)
        rotational = np.asarray(self.dataset.rotational_ghz[indices])
        every = all_targets(LEARNED, values, counts, rotational)
        found = mean_absolute_errors(every, self.dataset.truth()[indices])
        return {name: found[name] for name in REPORTED}


Outcome = tuple[dict[str, Any], Floats]


def our_config(name: str, options: argparse.Namespace) -> TrainConfig:
    """The training of one of our networks."""
    return replace(
        OURS[name],
        train_size=options.train_size,
        val_size=min(JUDGED, options.val_size),
        max_minutes=options.minutes,
        max_epochs=100_000,
        checkpoint_every=100_000,
        device="cpu",
        threads=options.threads,
        seed=options.seed,
        compile=options.compile,
    )


def run_ours(name: str, task: Task) -> Outcome:
    """Train and predict with qm9flow."""
    config = our_config(name, task.options)
    loading = Clock()
    stream = fit(config, task.dataset)
    started = next(stream)
    if not isinstance(started, Started):
        raise SystemExit(f"{name}: {started}")
    setup, clock, molecules = loading.seconds, Clock(), 0.0
    finished = None
    for event in stream:
        if isinstance(event, EpochEnded):
            metrics = event.metrics
            molecules += metrics["train/molecules_per_second"] * metrics["train/seconds"]
            score = metrics["val/score"]
            note(f"{name}: epoch {event.epoch}, {clock.seconds:.0f} s, score {score:.5f}")
        elif isinstance(event, Failed):
            raise SystemExit(f"{name} failed: {event.message}")
        elif isinstance(event, Finished):
            finished = event
    seconds, cpu = clock.seconds, clock.cpu_seconds
    assert finished is not None
    network = build(config.model, LEARNED)
    network.load_state_dict(load_weights(finished.weights))
    resident = ResidentMolecules.load(task.dataset, task.validation, None, "cpu")
    predicted = predict_resident(network, resident, len(LEARNED)).numpy().astype(np.float64)
    facts = {
        "molecules": round(molecules),
        "epochs": molecules / started.train_molecules,
        "train_seconds": seconds,
        "cpu_seconds": cpu,
        "setup_seconds": setup,
        "parameters": started.parameters,
    }
    return facts, predicted


class Best:
    """Judges epochs of a peer by validation molecules, and keeps the best weights."""

    def __init__(self, name: str, task: Task, network: torch.nn.Module) -> None:
        """Make the molecules ready."""
        indices = task.validation[:JUDGED]
        data = peer_data(task.dataset, indices, None, PEERS[name].cutoff_angstrom)
        self.name, self.network = name, network
        self.loader = DataLoader(data, batch_size=PREDICTED_AT_ONCE)
        self.truth = task.encoded(indices)
        self.score, self.state = math.inf, network.state_dict()
        self.seconds: float | None = None

    def judge(self, epochs: float) -> None:
        """Judge the network as it is."""
        clock = Clock()
        score = float(np.abs(predict_peer(self.network, self.loader) - self.truth).mean())
        self.seconds = clock.seconds
        note(f"{self.name}: {epochs:.2f} epochs, score {score:.5f}")
        if score < self.score:
            self.score = score
            self.state = {key: value.clone() for key, value in self.network.state_dict().items()}

    def reserve(self, molecules_per_second: float) -> float:
        """Seconds that the last judgement will take: as before, or a guess as `fit` makes it."""
        if self.seconds is not None:
            return self.seconds
        return len(self.truth) / molecules_per_second / 3 if molecules_per_second else 0.0


def train_peer(
    name: str, task: Task, network: torch.nn.Module, loader: DataLoader, best: Best
) -> int:
    """PyG's usual loop until time is up; gives the molecules seen."""
    options, limit, size = task.options, 60.0 * task.options.minutes, len(task.train)
    rate = rate_of(name, options)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    weighting = replace(task.train_config, weighting=options.peer_weighting)
    columns = compared(weighting, task.codec)
    clock, molecules, epoch_molecules, told = Clock(), 0, 0, 0.0
    for batch in endless(loader):
        taken = clock.seconds
        reserve = best.reserve(molecules / taken)
        share = taken / (limit - min(reserve, limit / 2))
        if share >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * share))
        seen = train_step(network, optimizer, batch, columns)
        molecules, epoch_molecules = molecules + seen, epoch_molecules + seen
        if epoch_molecules >= size:
            epoch_molecules = 0
            best.judge(molecules / size)
        if taken - told > TOLD_EVERY:
            told = taken
            note(f"{name}: {molecules:,} molecules, {taken:.0f} s")
    best.judge(molecules / size)
    return molecules


def rate_of(name: str, options: argparse.Namespace) -> float:
    """Adam's rate of one of PyG's networks."""
    rate: float = options.peer_rate or RATES.get(name, USUAL_RATE)
    return rate


def run_peer(name: str, task: Task) -> Outcome:
    """Train and predict with PyG: one epoch after another, the best of them kept."""
    options, peer = task.options, PEERS[name]
    keep_freed_memory()
    loading = Clock()
    encoded = task.encoded(task.train)
    data = peer_data(task.dataset, task.train, encoded, peer.cutoff_angstrom)
    torch.manual_seed(options.seed)
    network = make_peer(peer)
    loader = DataLoader(data, batch_size=options.peer_batch, shuffle=True)
    best = Best(name, task, network)
    setup, clock = loading.seconds, Clock()
    molecules = train_peer(name, task, network, loader, best)
    seconds, cpu = clock.seconds, clock.cpu_seconds
    network.load_state_dict(best.state)
    final = peer_data(task.dataset, task.validation, None, peer.cutoff_angstrom)
    predicted = predict_peer(network, DataLoader(final, batch_size=PREDICTED_AT_ONCE))
    facts = {
        "molecules": molecules,
        "epochs": molecules / len(data),
        "train_seconds": seconds,
        "cpu_seconds": cpu,
        "setup_seconds": setup,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    return facts, predicted


def run_chemprop(task: Task) -> Outcome:
    """Train and predict with chemprop, in its own Python."""
    options = task.options
    folder = options.out / "chemprop"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": task.train, "judge": task.validation[:JUDGED]}
    arrays: dict[str, Any] = {"smiles": task.smiles(task.validation)}
    for name, indices in parts.items():
        arrays[f"{name}_smiles"] = task.smiles(indices)
        arrays[f"{name}_targets"] = task.encoded(indices)
    np.savez(folder / "molecules.npz", **arrays)
    command = [
        options.chemprop_python,
        str(Path(__file__).parent / "chemprop_peer.py"),
        str(folder),
        f"--seconds={60 * options.minutes}",
        f"--threads={options.threads}",
        f"--seed={options.seed}",
        f"--loss={options.chemprop_loss}",
    ]
    environment = peer_environment(options.threads)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"chemprop ended with {done.returncode}")
    facts = json.loads(done.stdout.splitlines()[-1])
    with np.load(folder / "predicted.npz") as file:
        return facts, file["predicted"]


def run_one(name: str, task: Task) -> None:
    """Run a contestant in this process and keep its result."""
    options, before = task.options, load()
    torch.set_num_threads(options.threads)
    if name in OURS:
        facts, predicted = run_ours(name, task)
    elif name in PEERS:
        facts, predicted = run_peer(name, task)
    else:
        facts, predicted = run_chemprop(task)
    facts["molecules_per_second"] = facts["molecules"] / facts["train_seconds"]
    facts["load"] = [before, load()]
    result = {"settings": settings_of(name, options), **facts, "mae": task.errors(predicted)}
    np.savez(options.out / f"{name}.npz", predicted=predicted)
    (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def settings_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """All that a result depends on: one with other settings is made anew."""
    common = {
        "minutes": options.minutes,
        "threads": options.threads,
        "train_size": options.train_size,
        "val_size": options.val_size,
        "seed": options.seed,
        "commit": provenance.git_commit(),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }
    if name in OURS:
        return {**common, "config": to_dict(our_config(name, options))}
    if name in PEERS:
        return {
            **common,
            **peer_settings(PEERS[name]),
            "rate": rate_of(name, options),
            "batch": options.peer_batch,
            "weighting": options.peer_weighting,
        }
    version = installed(options.chemprop_python, "chemprop")
    return {**common, "loss": options.chemprop_loss, "chemprop": version}


def kept(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """A contestant's result from before, if it was made with the same settings."""
    try:
        result = read_result(name, options)
    except (OSError, ValueError):
        return None
    # as JSON has them: a tuple comes back as a list
    wanted = json.loads(json.dumps(settings_of(name, options)))
    return result if result.get("settings") == wanted else None


def result_of(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """A contestant's result, from before or from a process of its own."""
    result = kept(name, options)
    if result is not None:
        note(f"{name}: kept from before")
        return result
    note(f"{name}: {options.minutes:g} minutes")
    command = [sys.executable, *sys.argv, "--inside", name]
    subprocess.run(command, check=True)
    return read_result(name, options)


def read_result(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What a contestant left."""
    result: dict[str, Any] = json.loads((options.out / f"{name}.json").read_text())
    return result


def compare(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For each target: the best peer, and its error over the flagship's."""
    peers = [name for name in results if name not in OURS]
    if "density" not in results or not peers:
        return {}
    lines = {}
    for target in REPORTED:
        best = min(peers, key=lambda name: results[name]["mae"][target])
        ratio = results[best]["mae"][target] / results["density"]["mae"][target]
        lines[target] = {"best_peer": best, "ratio": round(ratio, 3)}
    return lines


def show(results: dict[str, dict[str, Any]], lead: dict[str, dict[str, Any]]) -> None:
    """Print the tables."""
    names = list(results)
    print(f"{'MAE':22}" + "".join(f"{name:>15}" for name in names) + "   best peer / density")
    for target in REPORTED:
        label = f"{target} [{properties.get(target).unit}]"
        cells = "".join(f"{results[name]['mae'][target]:15.5f}" for name in names)
        beside = f"   {lead[target]['ratio']:.2f} ({lead[target]['best_peer']})" if lead else ""
        print(f"{label:22}{cells}{beside}")
    rows = ("molecules_per_second", "epochs", "train_seconds", "cpu_seconds", "parameters")
    for row in rows:
        print(f"{row:22}" + "".join(f"{results[name][row]:15,.1f}" for name in names))
    if lead:
        ratios = [line["ratio"] for line in lead.values()]
        ahead, far = sum(r > 1 for r in ratios), sum(r >= FAR for r in ratios)
        print(f"density leads on {ahead} of {len(ratios)} targets, by {FAR:g} times on {far}")


def main() -> None:
    """Run who is missing, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of each contestant (20)")
    parser.add_argument("--threads", type=int, default=2, help="of each contestant (2)")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(USUAL))
    parser.add_argument("--out", type=Path, default=Path("work/accuracy"), help="results")
    parser.add_argument("--train-size", type=int, help="training molecules (all 110,000)")
    parser.add_argument(
        "--val-size", type=int, default=10_000, help="validation molecules (all 10,000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile ours"
    )
    parser.add_argument(
        "--peer-rate", type=float, help="PyG's Adam (tuned ones; 1e-3 for *_default)"
    )
    parser.add_argument("--peer-batch", type=int, default=64, help="PyG's batches (64)")
    parser.add_argument("--peer-weighting", choices=("balanced", "equal"), default="balanced")
    parser.add_argument("--chemprop-python", default=sys.executable, metavar="PATH")
    parser.add_argument("--chemprop-loss", choices=("mse", "mae"), default="mse")
    parser.add_argument("--inside", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.inside:
        run_one(options.inside, Task(options))
        return
    wanted = [name for name in CONTESTANTS if name in options.only]
    if "chemprop" in wanted and kept("chemprop", options) is None:
        version = installed(options.chemprop_python, "chemprop")
        if version is None:
            print(f"chemprop is left out: {options.chemprop_python} has none (see --help)")
            wanted.remove("chemprop")
    results = {name: result_of(name, options) for name in wanted}
    lead = compare(results)
    show(results, lead)
    ratios = [line["ratio"] for line in lead.values()]
    line = {
        "benchmark": "accuracy_per_minute",
        "minutes": options.minutes,
        "leads": sum(ratio > 1 for ratio in ratios),
        "leads_twofold": sum(ratio >= FAR for ratio in ratios),
        "targets": lead,
        "contestants": results,
        **machine(options.threads),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
