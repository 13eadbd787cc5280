"""PyTorch Geometric's own layers behind the same contract. The only module that imports it.

`PyGNNConv` is the network of `qm9flow.nn.mpnn` on PyG's `NNConv`: same function, same state
dict, the other side of comparisons. `PyGSchNet` is PyG's `SchNet` with one output for each
target. `to_pyg` hands molecules to PyG code of one's own.
"""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data
from torch_geometric.nn.conv import NNConv
from torch_geometric.nn.models.schnet import SchNet

from qm9flow.config import PyGNNConvConfig, PyGSchNetConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.mpnn import MPNN, dense_layers
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GaussianBasis, message_weight
from qm9flow.nn.readout import Pooling, Readout


class _EnvelopedEdgeNetwork(nn.Sequential):
    """An edge network whose matrices fade at the cutoff: the last column is their weight.

    The weight is multiplied into the hidden layer, where a row has K numbers, not h * h.
    """

    def forward(self, edge_attr: Tensor) -> Tensor:
        """(n_edges, R + 1) to (n_edges, h * h)."""
        first, last = dense_layers(self)
        weight = edge_attr[:, -1:]
        phi = torch.cat([F.relu(first(edge_attr[:, :-1])) * weight, weight], dim=1)
        return phi @ torch.cat([last.weight, last.bias[:, None]], dim=1).t()


def _conv(config: PyGNNConvConfig) -> NNConv:
    edge_network = _EnvelopedEdgeNetwork(
        nn.Linear(config.radial, config.edge_width),
        nn.ReLU(),
        nn.Linear(config.edge_width, config.hidden**2),
    )
    return NNConv(config.hidden, config.hidden, edge_network, aggr="add")


class PyGNNConv(Network):
    """The network of `qm9flow.nn.mpnn.MPNN` on PyG's `NNConv`.

    The same seed gives the same weights as there, and either loads the other's state dict. It
    builds an (h, h) matrix for each edge of each layer: at h = 64 about 4.6 MB a molecule and
    layer.
    """

    def __init__(self, config: PyGNNConvConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.config = config
        weights = MPNN(config, targets)
        self.embedding = weights.embedding
        self.basis = GaussianBasis(config.radial, config.cutoff_angstrom)
        with torch.random.fork_rng(devices=[]):  # NNConv draws weights that are replaced
            self.convs = nn.ModuleList(_conv(config) for _ in range(config.conv_layers))
        self.readout: Readout = weights.readout
        self.load_state_dict(weights.state_dict())

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), no vectors; whatever where there is no atom.
        """
        B, N = numbers.shape
        pairs = pair_mask(numbers > 0)
        distances = pair_distances(positions, pairs)
        near = pairs & (distances < self.cutoff_angstrom)
        molecule, src, dst = near.nonzero(as_tuple=True)  # (n_edges,) each
        edge_index = torch.stack([molecule * N + src, molecule * N + dst])
        distance = distances[near]
        weight = message_weight(distance, self.cutoff_angstrom)
        edge_attr = torch.cat([self.basis(distance), weight[:, None]], dim=1)  # (n_edges, R + 1)
        hidden = self.embedding(numbers.flatten())  # (B * N, h)
        for conv in self.convs:
            hidden = hidden + F.relu(conv(hidden, edge_index, edge_attr))
        return hidden.view(B, N, -1), None

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """From atoms to molecules.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.
            hidden: (B, N, h).
            vectors: None.

        Returns:
            (B, T), encoded targets.
        """
        encoded: Tensor = self.readout(hidden, numbers > 0)
        return encoded

    def exportable(self) -> MPNN:
        """The same function with the same weights, and no tensor whose size depends on data.

        Returns:
            `qm9flow.nn.mpnn.MPNN` in evaluation mode.
        """
        twin = MPNN(self.config, self.targets)
        twin.load_state_dict(self.state_dict())
        return twin.eval()

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Those of `qm9flow.nn.mpnn.MPNN`: PyG's dense layers are a class of their own.

        Returns:
            The weights of all dense layers outside the readout.
        """
        own = [conv.get_parameter("lin.weight") for conv in self.convs]
        return [*super().hidden_matrices(), *own]


class _AllPairs(nn.Module):
    """The interaction graph of dense molecules: every pair, none of them data-dependent.

    PyG's `SchNet` weights a message by (cos(pi d / cutoff) + 1) / 2. Whatever is no pair, or lies
    further apart, gets d = cutoff and hence the weight 0. So there is no edge list to build (PyG's
    own needs a compiled extension), never an empty one, and the graph can be exported.
    """

    def __init__(self, cutoff_angstrom: float) -> None:
        super().__init__()
        self.cutoff_angstrom = cutoff_angstrom

    def forward(self, positions: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, 3) and (B, N) bool to (2, B * N * N) and (B * N * N,) angstrom."""
        B, N = atoms.shape
        pairs = pair_mask(atoms)
        distances = torch.where(pairs, pair_distances(positions, pairs), self.cutoff_angstrom)
        index = torch.arange(B * N, device=atoms.device).view(B, N)
        src = index[:, :, None].expand(B, N, N).reshape(-1)
        dst = index[:, None, :].expand(B, N, N).reshape(-1)
        return torch.stack([src, dst]), distances.clamp(max=self.cutoff_angstrom).reshape(-1)


class PyGSchNet(Network):
    """PyG's `SchNet` with one output for each target, pooled as every network here.

    Source: K. T. Schuett et al., NeurIPS 2017 (arXiv:1706.08566), as implemented in PyTorch
    Geometric. Deviations: several outputs; sums are scaled as in `qm9flow.nn.readout`.
    """

    def __init__(self, config: PyGSchNetConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.schnet = SchNet(
            hidden_channels=config.hidden,
            num_filters=config.hidden,
            num_interactions=config.interactions,
            num_gaussians=config.radial,
            cutoff=config.cutoff_angstrom,
            interaction_graph=_AllPairs(config.cutoff_angstrom),
        )
        self.schnet.lin2 = nn.Linear(config.hidden // 2, len(self.targets))
        self.pooling = Pooling(targets)

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), no vectors; whatever where there is no atom.
        """
        net = self.schnet
        hidden = net.embedding(numbers.flatten())  # (B * N, h)
        index, distances = net.interaction_graph(positions, numbers > 0)
        functions = net.distance_expansion(distances)
        for interaction in net.interactions:
            hidden = hidden + interaction(hidden, index, distances, functions)
        return hidden.view(*numbers.shape, -1), None

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """From atoms to molecules.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.
            hidden: (B, N, h).
            vectors: None.

        Returns:
            (B, T), encoded targets.
        """
        net = self.schnet
        values = net.lin2(net.act(net.lin1(hidden)))  # (B, N, T)
        encoded: Tensor = self.pooling(values, numbers > 0)
        return encoded

    def hidden_matrices(self) -> list[nn.Parameter]:
        """As everywhere, but SchNet's readout has no module: it is the last two dense layers.

        Returns:
            The weights of all dense layers outside the readout.
        """
        readout = {id(self.schnet.lin1.weight), id(self.schnet.lin2.weight)}
        return [matrix for matrix in super().hidden_matrices() if id(matrix) not in readout]


Array = npt.NDArray[Any] | Tensor


def _molecule(numbers: Tensor, positions: Tensor, targets: Tensor | None, cutoff: float) -> Data:
    atoms = numbers > 0
    numbers, positions = numbers[atoms], positions[atoms]
    pairs = pair_mask(torch.ones_like(numbers, dtype=torch.bool)[None])
    distances = pair_distances(positions[None], pairs)[0]
    near = pairs[0] & (distances < cutoff)
    return Data(
        z=numbers,
        pos=positions,
        edge_index=near.nonzero().t().contiguous(),
        edge_attr=distances[near][:, None],
        y=None if targets is None else targets[None],
    )


def to_pyg(
    numbers: Array, positions: Array, targets: Array | None = None, cutoff_angstrom: float = 5.0
) -> Data | list[Data]:
    """Molecules for PyG code of one's own.

    Args:
        numbers: (N,) or (B, N), atomic numbers, 0 where there is no atom.
        positions: (N, 3) or (B, N, 3), angstrom.
        targets: (T,) or (B, T), copied to `y`.
        cutoff_angstrom: Atoms nearer than this are joined by two edges, one each way.

    Returns:
        One `Data`, or a list of B: `z` (n,), `pos` (n, 3), `edge_index` (2, n_edges),
        `edge_attr` (n_edges, 1) with distances in angstrom, `y` (1, T).
    """
    z = torch.as_tensor(numbers).long()
    pos = torch.as_tensor(positions)
    y = None if targets is None else torch.as_tensor(targets)
    if z.dim() == 1:
        return _molecule(z, pos, y, cutoff_angstrom)
    return [
        _molecule(z[i], pos[i], None if y is None else y[i], cutoff_angstrom) for i in range(len(z))
    ]
