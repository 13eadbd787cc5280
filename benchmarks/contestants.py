"""Who takes part in `accuracy_per_minute.py`: the task, and how each contestant trains for it.

Nothing runs from here.
"""

import argparse
import json
import math
import subprocess
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
    "mpnn": replace(FLAGSHIP, model=MPNNConfig()),
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


def run(name: str, task: Task) -> Outcome:
    """Train a contestant and predict the validation molecules: facts, and (n, 10) encoded."""
    if name in OURS:
        return run_ours(name, task)
    return run_peer(name, task) if name in PEERS else run_chemprop(task)


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
