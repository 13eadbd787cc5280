"""SchNet: continuous filters over distances, each made once for both directions of a pair.

Source: K. T. Schuett et al., NeurIPS 2017 (arXiv:1706.08566). Deviations: a cosine weight on
messages that vanishes at the cutoff, as PyTorch Geometric's implementation has; and the readout of
`qm9flow.nn.molecular`, for several targets at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.config import SchNetConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.filters import filtered_pairs, filtered_sum
from qm9flow.nn.molecular import MolecularReadout
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GAUSSIAN_NORM, TYPICAL_NEIGHBOURS, GaussianBasis, cosine_cutoff

INITIAL_SHARE = 0.5
"""Initial size of what an interaction adds, beside what it adds to."""
SOFTPLUS_SIZE = 0.6
"""Root mean square of the shifted softplus of normal numbers."""


class ShiftedSoftplus(nn.Module):
    """ln(1 + e^x) - ln 2 = max(x, 0) - ln(2 sigmoid(|x|)): smooth, and 0 at 0.

    Graphs take the second form: ONNX Runtime has fast code for each of its parts, and none for
    softplus, which took two thirds of a network's time.

    Subtracted here and not in the bias of the next layer, which would save a pass: that bias is a
    sum of many weights, and its rounding, the same for all atoms, was most of what r2 differs by
    between torch and an exported graph.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if torch.compiler.is_exporting():
            return F.relu(values) - (2 * torch.sigmoid(values.abs())).log()
        return F.softplus(values) - math.log(2)


class FilterConv(nn.Module):
    """The dense layers on both sides of the sum over neighbours; PyG's `CFConv`."""

    def __init__(self, hidden: int) -> None:
        """Make the weights.

        Args:
            hidden: h, also the number of filters.
        """
        super().__init__()
        self.lin1 = nn.Linear(hidden, hidden, bias=False)
        self.lin2 = nn.Linear(hidden, hidden)
        nn.init.normal_(self.lin1.weight, std=1 / math.sqrt(hidden))
        # the cosine cutoff takes half of what the neighbours add up to
        nn.init.normal_(self.lin2.weight, std=2 / math.sqrt(TYPICAL_NEIGHBOURS * hidden))
        nn.init.zeros_(self.lin2.bias)

    def forward(self, hidden: Tensor, filters: Tensor) -> Tensor:
        """(B, N, h) and filters as of `filtered_sum` to (B, N, h)."""
        summed: Tensor = self.lin2(filtered_sum(filters, self.lin1(hidden)))
        return summed


class Interaction(nn.Module):
    """One interaction: x_i + V ssp(V_2 sum_j W(d_ij) * (V_1 x_j)), less the x_i.

    W(d) = u(d) (A_2 ssp(A_1 g(d) + a_1) + a_2) with Gaussians g and the weight u of
    `cosine_cutoff`; ssp(x) = ln(1 + e^x) - ln 2. The parameters have the names and shapes of
    those of PyG's `InteractionBlock`.
    """

    def __init__(self, hidden: int, radial: int) -> None:
        """Make the weights.

        Initial filters and sums are of order one, so that steps of the optimiser move all layers
        by similar shares from the start.

        Args:
            hidden: h, also the number of filters.
            radial: R, number of radial functions.
        """
        super().__init__()
        first, last = nn.Linear(radial, hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(first, ShiftedSoftplus(), last)
        self.conv = FilterConv(hidden)
        self.act = ShiftedSoftplus()
        self.lin = nn.Linear(hidden, hidden)
        nn.init.normal_(first.weight, std=1 / GAUSSIAN_NORM)
        nn.init.uniform_(first.bias, -0.5, 0.5)
        nn.init.normal_(last.weight, std=1 / (SOFTPLUS_SIZE * math.sqrt(hidden)))
        nn.init.zeros_(last.bias)
        nn.init.normal_(self.lin.weight, std=INITIAL_SHARE / (SOFTPLUS_SIZE * math.sqrt(hidden)))
        nn.init.zeros_(self.lin.bias)

    def forward(self, hidden: Tensor, functions: Tensor, weight: Tensor) -> Tensor:
        """Interact once.

        Args:
            hidden: (B, N, h).
            functions: (B, S, N, R) or (B, N, N, R), Gaussians.
            weight: (B, S, N, 1) or (B, N, N, 1), zero where there is no pair.

        Returns:
            (B, N, h), to be added.
        """
        filters = self.mlp(functions) * weight
        added: Tensor = self.lin(self.act(self.conv(hidden, filters)))
        return added


class SchNet(Network):
    """Embedded elements, interactions, one readout for each kind of target."""

    def __init__(self, config: SchNetConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.embedding = ElementEmbedding(config.hidden)
        self.basis = GaussianBasis(config.radial, config.cutoff_angstrom)
        self.interactions = nn.ModuleList(
            Interaction(config.hidden, config.radial) for _ in range(config.interactions)
        )
        self.readout = MolecularReadout(
            config.hidden, 0, config.hidden, targets, layers=config.fc_layers
        )
        self.readout.start_charges(self.embedding)

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), whatever where there is no atom; no vectors.
        """
        pairs = pair_mask(numbers > 0)
        distances, pairs = filtered_pairs(pair_distances(positions, pairs), pairs)  # (B, S, N)
        functions = self.basis(distances)
        weight = (cosine_cutoff(distances, self.cutoff_angstrom) * pairs)[..., None]
        hidden: Tensor = self.embedding(numbers)  # (B, N, h)
        for interaction in self.interactions:
            hidden = hidden + interaction(hidden, functions, weight)
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
        encoded: Tensor = self.readout(numbers, positions, hidden, vectors)
        return encoded
