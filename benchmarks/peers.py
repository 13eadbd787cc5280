"""What the benchmarks compare with: PyTorch Geometric's networks in its usual loop.

Shared by `accuracy_per_minute.py`, `throughput.py` and `onnx_latency.py`; nothing runs from here.

PyG's own classes do the work: `SchNet`, `NNConv`, `GRU` and `Set2Set`, `Data` and `DataLoader`.
They are spared what a plain loop would not: neighbours are searched once, before any clock runs,
and one network learns all ten targets at once. `SchNet` gets ten outputs, pooled as physics has it
(extensive ones summed, mu from charges as PyG's own option makes it, others averaged). The `NNConv`
network is that of PyG's example `qm9_nn_conv.py` (J. Gilmer et al., ICML 2017, arXiv:1704.01212),
with Gaussians of distances on its edges instead of bond types, which would need more than elements
and positions.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn.aggr import Set2Set
from torch_geometric.nn.conv import NNConv
from torch_geometric.nn.models.schnet import GaussianSmearing, SchNet
from torch_geometric.nn.pool import global_add_pool, global_mean_pool

from qm9flow import elements, properties
from qm9flow.config import RECIPES
from qm9flow.data.store import Dataset
from qm9flow.elements import MAX_NUMBER
from qm9flow.properties import LEARNED
from qm9flow.tracking import provenance

FLAGSHIP = RECIPES["flagship"]
"""The recipe of the flagship, its budget left open."""

TYPICAL_ATOMS = 18
"""What sums are divided by, so that a fresh network's outputs are of order one."""

DIPOLE = "mu"

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SchNetPeer:
    """PyG's `SchNet`; the defaults here are PyG's own."""

    hidden: int = 128
    interactions: int = 6
    radial: int = 50
    cutoff_angstrom: float = 10.0


@dataclass(frozen=True)
class NNConvPeer:
    """PyG's example network on `NNConv`; the defaults here are that example's.

    The example joins all atoms; no two of QM9's lie further apart than 12 angstrom.
    """

    hidden: int = 64
    edge_width: int = 128
    steps: int = 3
    radial: int = 32
    cutoff_angstrom: float = 12.0


Peer = SchNetPeer | NNConvPeer


class _GivenEdges(nn.Module):
    """SchNet's interaction graph where the edges are there already."""

    def forward(self, edges: tuple[Tensor, Tensor], _batch: Tensor) -> tuple[Tensor, Tensor]:
        """Edges and their lengths, as they came in the place of positions."""
        return edges


class _Unpooled(nn.Module):
    """SchNet's readout, left to `SchNetNetwork`."""

    def forward(self, values: Tensor, _batch: Tensor, dim: int) -> Tensor:
        """(n_atoms, T), as they came."""
        assert dim == 0
        return values


class SchNetNetwork(nn.Module):
    """PyG's `SchNet` on a batch, for several targets at once.

    Sums of extensive targets, means of others, and mu as PyG's `SchNet(dipole=True)` has it: the
    length of the sum of atomic charges times places from the centre of mass.
    """

    is_extensive: Tensor
    is_dipole: Tensor

    def __init__(self, peer: SchNetPeer) -> None:
        super().__init__()
        self.schnet = SchNet(
            hidden_channels=peer.hidden,
            num_filters=peer.hidden,
            num_interactions=peer.interactions,
            num_gaussians=peer.radial,
            cutoff=peer.cutoff_angstrom,
            interaction_graph=_GivenEdges(),
        )
        self.schnet.lin2 = nn.Linear(peer.hidden // 2, len(LEARNED))
        self.schnet.readout = _Unpooled()
        flags = [properties.get(name).is_extensive for name in LEARNED]
        self.register_buffer("is_extensive", torch.tensor(flags))
        self.register_buffer("is_dipole", torch.tensor([name == DIPOLE for name in LEARNED]))

    def forward(self, batch: Batch) -> Tensor:
        """(B, T), encoded targets."""
        values = self.schnet(batch.z, (batch.edge_index, batch.edge_length), batch.batch)
        totals = global_add_pool(values, batch.batch) / TYPICAL_ATOMS
        pooled = torch.where(self.is_extensive, totals, global_mean_pool(values, batch.batch))
        charges = values[:, self.is_dipole]  # (n_atoms, 1)
        dipoles = global_add_pool(charges * batch.place, batch.batch)  # (B, 3)
        return torch.where(self.is_dipole, dipoles.norm(dim=1, keepdim=True), pooled)


class NNConvNetwork(nn.Module):
    """Rounds of one `NNConv` and one `GRU`, then `Set2Set`, as in PyG's example."""

    def __init__(self, peer: NNConvPeer) -> None:
        super().__init__()
        h = peer.hidden
        self.steps = peer.steps
        self.embedding = nn.Embedding(MAX_NUMBER + 1, h)
        self.basis = GaussianSmearing(0.0, peer.cutoff_angstrom, peer.radial)
        edge_network = nn.Sequential(
            nn.Linear(peer.radial, peer.edge_width), nn.ReLU(), nn.Linear(peer.edge_width, h * h)
        )
        self.conv = NNConv(h, h, edge_network, aggr="mean")
        self.gru = nn.GRU(h, h)
        self.set2set = Set2Set(h, processing_steps=3)
        self.lin1 = nn.Linear(2 * h, h)
        self.lin2 = nn.Linear(h, len(LEARNED))

    def forward(self, batch: Batch) -> Tensor:
        """(B, T), encoded targets."""
        out = self.embedding(batch.z)
        state = out.unsqueeze(0)
        edge_attr = self.basis(batch.edge_length)
        for _ in range(self.steps):
            messages = F.relu(self.conv(out, batch.edge_index, edge_attr))
            out, state = self.gru(messages.unsqueeze(0), state)
            out = out.squeeze(0)
        pooled = self.set2set(out, batch.batch)
        values: Tensor = self.lin2(F.relu(self.lin1(pooled)))
        return values


def make_peer(peer: Peer) -> nn.Module:
    """A peer's network with fresh weights, from torch's global generator."""
    return SchNetNetwork(peer) if isinstance(peer, SchNetPeer) else NNConvNetwork(peer)


def peer_settings(peer: Peer) -> dict[str, Any]:
    """A peer's class and options, for the record."""
    return {"network": type(peer).__name__, **asdict(peer)}


def peer_data(
    dataset: Dataset, indices: Indices, encoded: Floats | None, cutoff_angstrom: float
) -> list[Data]:
    """One `Data` a molecule: edges, their lengths, and places from the centre of mass.

    Args:
        dataset: All molecules.
        indices: (n,), places in it.
        encoded: (n, T), what the network learns; None leaves it out.
        cutoff_angstrom: Atoms nearer than this are joined, both ways.

    Returns:
        The molecules, in order.
    """
    wanted = None if encoded is None else torch.from_numpy(encoded.astype(np.float32))
    mass_of = elements.by_number("mass_u")
    molecules = []
    for row, i in enumerate(indices):
        atoms = slice(dataset.ptr[i], dataset.ptr[i + 1])
        position = dataset.positions[atoms]
        masses = mass_of[dataset.numbers[atoms]]
        length = np.linalg.norm(position[:, None] - position[None], axis=-1)
        near = length < cutoff_angstrom
        np.fill_diagonal(near, val=False)
        molecules.append(
            Data(
                z=torch.from_numpy(dataset.numbers[atoms].astype(np.int64)),
                edge_index=torch.from_numpy(np.stack(near.nonzero())),
                edge_length=torch.from_numpy(length[near].astype(np.float32)),
                place=torch.from_numpy(position - masses @ position / masses.sum()).float(),
                num_nodes=len(position),
                y=None if wanted is None else wanted[row : row + 1],
            )
        )
    return molecules


def train_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, columns: Tensor | None
) -> int:
    """One step of PyG's usual loop on the mean absolute error; gives the molecules seen."""
    optimizer.zero_grad()
    errors = network(batch) - batch.y  # (B, T)
    loss = (errors if columns is None else errors @ columns).abs().mean()
    loss.backward()
    optimizer.step()
    return int(batch.num_graphs)


def predict_peer(
    network: nn.Module, loader: Iterable[Batch], device: torch.device | str = "cpu"
) -> Floats:
    """(n, T), encoded targets of all molecules of a loader, in its order."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        parts = [network(batch.to(device)).cpu() for batch in loader]
    network.train(was_training)
    return torch.cat(parts).numpy().astype(np.float64)


def endless(loader: DataLoader, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Batches for ever, epoch after epoch, each on the device."""
    while True:
        for batch in loader:
            yield batch.to(device)


@dataclass
class Clock:
    """Wall time, and CPU time of this process with its threads, since it was made."""

    def __post_init__(self) -> None:
        """Start."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall time."""
        return time.perf_counter() - self._wall

    @property
    def cpu_seconds(self) -> float:
        """CPU time."""
        return time.process_time() - self._cpu


def note(text: str) -> None:
    """A line of progress, on the standard error."""
    print(text, file=sys.stderr, flush=True)


def machine(threads: int) -> dict[str, Any]:
    """Hardware, versions and present load, for the last line."""
    return {
        "hardware": provenance.hardware(),
        "threads": threads,
        "versions": provenance.versions(),
        "load": load(),
    }


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where nobody counts."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def installed(python: str, package: str) -> str | None:
    """Version of a package in another Python, None if it has none."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def peer_environment(threads: int) -> dict[str, str]:
    """The environment of a peer's process: as many threads, and memory kept as ours keeps it.

    The variables are glibc's; they do what `qm9flow.training.allocator` does.
    """
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    }
