"""Edge-conditioned message passing, without a matrix for every edge.

Sources: J. Gilmer et al., ICML 2017 (arXiv:1704.01212), section 5, "edge network";
M. Simonovsky, N. Komodakis, CVPR 2017 (arXiv:1704.02901). Deviations: plain ReLU layers instead
of a gated recurrent unit, added to what went in; each layer its own edge network; a weight on
messages that vanishes at the cutoff; and the readout of `qm9flow.nn.readout` instead of set2set.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.config import MPNNConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.messages import sum_messages
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import Edges
from qm9flow.nn.readout import Readout

INITIAL_SHARE = 0.5
"""Initial size of what a layer adds, beside what it adds to."""


class EdgeConv(nn.Module):
    """One round of messages; the function of PyTorch Geometric's `NNConv` with aggr="add".

    h_i' = W_0^T h_i + b + sum_j u_ij W(e_ij)^T h_j, with weights u and one matrix
    W(e) = sum_k phi_k(e) A_k + B for each edge, phi = relu(linear(e)). As the last layer of the
    edge network is linear, sum_j moves inside:

        sum_j u_ij W(e_ij)^T h_j = sum_k A_k^T (sum_j u_ij phi_k(e_ij) h_j) + B^T sum_j u_ij h_j

    so that each A_k multiplies once per atom instead of once per edge, and no (edges, h, h)
    tensor exists. The parameters have the names and shapes of `NNConv`'s.
    """

    def __init__(self, hidden: int, edge_width: int, radial: int) -> None:
        """Make the weights.

        Args:
            hidden: h.
            edge_width: K, width of the edge network's hidden layer.
            radial: R, number of radial functions.
        """
        super().__init__()
        self.hidden = hidden
        self.edge_width = edge_width
        self.nn = nn.Sequential(
            nn.Linear(radial, edge_width), nn.ReLU(), nn.Linear(edge_width, hidden * hidden)
        )
        self.lin = nn.Linear(hidden, hidden, bias=False)
        self.bias = nn.Parameter(torch.empty(hidden))
        initialise_conv(self.nn, self.lin.weight, self.bias)

    def forward(self, hidden: Tensor, edges: Tensor, basis: Tensor | None = None) -> Tensor:
        """Pass messages once.

        Args:
            hidden: (B, N, h), or (B, N, c) with a basis.
            edges: (B, N, N, R + 1), as from `Edges`, sender first.
            basis: (c, h): the hidden values are `hidden @ basis`, and with c < h it is cheaper
                not to multiply them out.

        Returns:
            (B, N, h), before any activation.
        """
        first, last = dense_layers(self.nn)
        K, h = self.edge_width + 1, self.hidden  # B counts as one more A_k
        rows = torch.cat([first.weight, first.bias[:, None]], dim=1)  # (K - 1, R + 1)
        constant = F.pad(rows.new_ones(1, 1), (rows.shape[1] - 1, 0))  # (1, R + 1)
        matrices = torch.cat([last.weight.t(), last.bias[None]]).view(K, h, h)
        root = self.lin.weight.t()  # (h, h)
        if basis is not None:
            matrices, root = basis @ matrices, basis @ root  # (K, c, h), (c, h)
        messages = sum_messages(edges, hidden, torch.cat([rows, constant]), matrices)
        return messages + hidden @ root + self.bias  # (B, N, h)


def dense_layers(edge_network: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The two dense layers of an edge network.

    Args:
        edge_network: Linear, activation, linear.

    Returns:
        The first and the last.
    """
    first, last = edge_network[0], edge_network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return first, last


def initialise_conv(edge_network: nn.Sequential, root: Tensor, bias: Tensor) -> None:
    """Initial weights that keep hidden values of order one from layer to layer.

    PyTorch's own defaults blow them up: the fan-in of a message is K * h, that of the layer its
    matrix comes from only K. After four layers of 64, QM9's outputs would be near 2,000.

    Args:
        edge_network: Linear, activation, linear.
        root: (h, h), weight of the atom's own hidden values.
        bias: (h,).
    """
    first, last = dense_layers(edge_network)
    h = len(bias)
    nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
    nn.init.uniform_(first.bias, -0.5, 0.5)
    nn.init.normal_(last.weight, std=INITIAL_SHARE * math.sqrt(2 / (h * last.in_features)))
    nn.init.zeros_(last.bias)
    nn.init.normal_(root, std=INITIAL_SHARE * math.sqrt(1 / h))
    nn.init.zeros_(bias)


class MPNN(Network):
    """Embedded elements, rounds of messages, dense layers, sum or mean over atoms.

    h_i <- h_i + relu(EdgeConv(h)_i) in each round.
    """

    def __init__(self, config: MPNNConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.embedding = ElementEmbedding(config.hidden)
        self.edges = Edges(config.radial, config.cutoff_angstrom)
        self.convs = nn.ModuleList(
            EdgeConv(config.hidden, config.edge_width, config.radial)
            for _ in range(config.conv_layers)
        )
        self.readout = Readout(config.hidden, config.fc_layers, targets)

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), no vectors; whatever where there is no atom.
        """
        pairs = pair_mask(numbers > 0)
        edges = self.edges(pair_distances(positions, pairs), pairs)  # (B, N, N, R + 1)
        elements = self.embedding.one_hot(numbers)  # (B, N, 5)
        embedding = self.embedding.rows()  # (5, h)
        first, *rest = self.convs
        hidden = elements @ embedding  # (B, N, h)
        hidden = hidden + F.relu(first(elements, edges, embedding))
        for conv in rest:
            hidden = hidden + F.relu(conv(hidden, edges))
        return hidden, None

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
