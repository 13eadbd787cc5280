"""PaiNN: scalars and vectors on each atom, that turn with the molecule.

Source: K. T. Schuett, O. T. Unke, M. Gastegger, ICML 2021 (arXiv:2102.03150). Deviations: Gaussians
and the envelope of `qm9flow.nn.radial` instead of sines and a cosine; sums over neighbours are
divided by the root of their usual number; and the readout of `qm9flow.nn.molecular`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.config import PaiNNConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.filters import directed_sum, filtered_pairs, filtered_sum
from qm9flow.nn.molecular import MolecularReadout
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import GAUSSIAN_NORM, Edges

INITIAL_SHARE = 0.3
"""Initial size of what a block adds, beside what it adds to."""
SILU_SIZE = 0.6
"""Root mean square of the SiLU of normal numbers."""
NORM_EPSILON = 1e-6
"""Added to squared lengths: the root has no gradient at zero, and a length that symmetry makes zero
would be rounding noise. Much less is taken for zero when a graph is simplified."""


def pair_directions(positions: Tensor, distances: Tensor) -> Tensor:
    """Unit vectors between atoms.

    Args:
        positions: (B, N, 3), angstrom.
        distances: (B, N, N), angstrom, not zero.

    Returns:
        (B, 3, N, N), from the second atom to the first; of no meaning where there is no pair.
    """
    along = positions.transpose(1, 2)  # (B, 3, N)
    return (along[..., None] - along[..., None, :]) / distances[:, None]


def _dense(width_in: int, width_out: int, size: float = 1.0, bias: bool = True) -> nn.Linear:
    """A linear layer that makes numbers of this size from numbers of order one."""
    layer = nn.Linear(width_in, width_out, bias=bias)
    nn.init.normal_(layer.weight, std=size / math.sqrt(width_in))
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Message(nn.Module):
    """What atoms tell each other.

        ds_i = sum_j W_s(d_ij) * phi_s(s_j)
        dv_i = sum_j W_v(d_ij) * phi_v(s_j) * v_j + W_n(d_ij) * phi_n(s_j) n_ij

    with filters W that are linear in the radial functions and one network phi of two dense layers
    for all three.
    """

    def __init__(self, hidden: int, radial: int) -> None:
        """Make the weights.

        Args:
            hidden: h.
            radial: R, number of radial functions.
        """
        super().__init__()
        self.phi = nn.Sequential(
            _dense(hidden, hidden), nn.SiLU(), _dense(hidden, 3 * hidden, INITIAL_SHARE / SILU_SIZE)
        )
        self.filters = nn.Linear(radial + 1, 3 * hidden, bias=False)  # edges hold the constant
        nn.init.normal_(self.filters.weight, std=1 / GAUSSIAN_NORM)

    def forward(
        self, scalars: Tensor, vectors: Tensor | None, edges: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pass messages once.

        Args:
            scalars: (B, N, h).
            vectors: (B, 3, N, h), or none where all are zero.
            edges: (B, S, N, R + 1) or (B, N, N, R + 1), as from `Edges`.
            directions: (B, 3, S, N) or (B, 3, N, N), unit vectors.

        Returns:
            (B, N, h) and (B, 3, N, h), to be added.
        """
        phi_s, phi_v, phi_n = self.phi(scalars).chunk(3, dim=-1)  # (B, N, h) each
        weight_s, weight_v, weight_n = self.filters.weight.chunk(3)  # (h, R + 1) each
        ds = filtered_sum(F.linear(edges, weight_s), phi_s)
        dv = directed_sum(F.linear(edges, weight_n), phi_n, directions)
        if vectors is not None:
            dv = dv + filtered_sum(F.linear(edges, weight_v), phi_v[:, None] * vectors)
        return ds, dv


class Update(nn.Module):
    """What an atom makes of its own scalars and vectors.

        ds = a_s + a_sv <U v, V v>
        dv = a_v U v

    with the factors a from a network of two dense layers that sees s and the lengths |V v|.
    """

    def __init__(self, hidden: int) -> None:
        """Make the weights.

        Args:
            hidden: h.
        """
        super().__init__()
        self.mix = _dense(hidden, 2 * hidden, bias=False)  # U and V
        self.factors = nn.Sequential(
            _dense(2 * hidden, hidden),
            nn.SiLU(),
            _dense(hidden, 3 * hidden, INITIAL_SHARE / SILU_SIZE),
        )

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Update once.

        Args:
            scalars: (B, N, h).
            vectors: (B, 3, N, h).

        Returns:
            (B, N, h) and (B, 3, N, h), to be added.
        """
        mixed_u, mixed_v = self.mix(vectors).chunk(2, dim=-1)  # (B, 3, N, h) each
        lengths = (mixed_v.square().sum(dim=1) + NORM_EPSILON).sqrt()  # (B, N, h)
        factors = self.factors(torch.cat([scalars, lengths], dim=-1))
        a_s, a_sv, a_v = factors.chunk(3, dim=-1)  # (B, N, h) each
        return a_s + a_sv * (mixed_u * mixed_v).sum(dim=1), a_v[:, None] * mixed_u


class PaiNN(Network):
    """Embedded elements, rounds of messages and updates, one readout for each kind of target."""

    def __init__(self, config: PaiNNConfig, targets: Sequence[str]) -> None:
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
        self.messages = nn.ModuleList(
            Message(config.hidden, config.radial) for _ in range(config.interactions)
        )
        self.updates = nn.ModuleList(Update(config.hidden) for _ in range(config.interactions))
        self.readout = MolecularReadout(
            config.hidden, config.hidden, config.hidden, targets, layers=config.fc_layers
        )
        self.readout.start_charges(self.embedding)

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), that no rotation changes, and (B, N, 3, h), that turn with the molecule;
            whatever where there is no atom.
        """
        pairs = pair_mask(numbers > 0)
        distances = pair_distances(positions, pairs)
        directions = pair_directions(positions, distances)
        distances, pairs, directions = filtered_pairs(distances, pairs, directions)
        edges = self.edges(distances, pairs)
        scalars: Tensor = self.embedding(numbers)  # (B, N, h)
        vectors: Tensor | None = None
        for message, update in zip(self.messages, self.updates, strict=True):
            ds, dv = message(scalars, vectors, edges, directions)
            scalars, vectors = scalars + ds, dv if vectors is None else vectors + dv
            ds, dv = update(scalars, vectors)
            scalars, vectors = scalars + ds, vectors + dv
        assert vectors is not None
        return scalars, vectors.transpose(1, 2)

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """From atoms to molecules.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.
            hidden: (B, N, h).
            vectors: (B, N, 3, h).

        Returns:
            (B, T), encoded targets.
        """
        encoded: Tensor = self.readout(numbers, positions, hidden, vectors)
        return encoded
