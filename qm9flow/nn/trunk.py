"""The flagship's trunk: densities of neighbours, contracted on each atom.

Around each atom the neighbours' hidden values are summed under radial functions (a scalar density)
and under radial functions times directions (a vector density). These sums are batched matrix
products with tensors that depend on geometry alone: they are made once a batch, shared by all
layers, and need no gradient. What is learned acts on atoms, in dense layers; all that a layer
computes for a pair is one number, the function of distance that neighbours' vectors are summed
under. Multiply-adds for each atom and layer, with N atoms, K radial functions, c channels, h
scalars, v vectors: 4 N K c for the sums, K c (h + 3 v) to contract them, N (K + 3 v) + 3 v^2 for
neighbours' vectors, 6 v^2 for products of vectors, and the dense layers.

Products of vectors bring angles between neighbours into the scalars; gates bring scalars into the
vectors. Sources: expansion of the neighbours' density, A. P. Bartok, R. Kondor, G. Csanyi, Phys.
Rev. B 87, 184115 (2013); vectors beside scalars, K. Schuett et al., ICML 2021 (arXiv:2102.03150);
atomic cluster expansion, R. Drautz, Phys. Rev. B 99, 014104 (2019).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.config import DensityConfig
from qm9flow.elements import NUMBERS
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import BesselBasis

CONTRACTED = 1.0
"""Initial size of a contracted sum over neighbours, beside that of the sum's terms."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Geometry of a batch, as matrices that sum over neighbours.

    Attributes:
        scalar: (B, N * K, N), radial functions; row (i, k), column j.
        vector: (B, N * 3 * K, N), the same times the direction from i to j.
        radial: (B, N, N, K), the first as a tensor.
    """

    scalar: Tensor
    vector: Tensor
    radial: Tensor


class VectorsOver(nn.Module):
    """Neighbours' vectors, summed under one learned function of distance."""

    def __init__(self, vectors: int, radial: int) -> None:
        """Make the weights.

        Args:
            vectors: v.
            radial: K.
        """
        super().__init__()
        self.mix = nn.Linear(radial, 1, bias=False)
        self.turn = nn.Linear(vectors, vectors, bias=False)

    def forward(self, vectors: Tensor, around: Surroundings) -> Tensor:
        """Sum.

        Args:
            vectors: (B, N, 3, v).
            around: Geometry.

        Returns:
            (B, N, 3, v).
        """
        weights = self.mix(around.radial)[..., 0]  # (B, N, N)
        summed: Tensor = self.turn((weights @ vectors.flatten(2)).view_as(vectors))
        return summed


class DensityLayer(nn.Module):
    """One round: sum over neighbours, contract, multiply vectors, update."""

    def __init__(self, config: DensityConfig, senders: int, *, is_first: bool) -> None:
        """Make the weights.

        Args:
            config: Widths.
            senders: Numbers of each atom that are summed over: c, or elements in the first layer.
            is_first: Whether there are no vectors yet.
        """
        super().__init__()
        h, v, K = config.hidden, config.vectors, config.radial
        self.radial, self.vectors = K, v
        self.norm = nn.LayerNorm(h)
        self.send = nn.Identity() if is_first else nn.Linear(h, senders, bias=False)
        self.scalars_in = nn.Linear(K * senders, h)
        self.vectors_in = nn.Linear(K * senders, v, bias=False)
        for linear in (self.scalars_in, self.vectors_in):
            nn.init.normal_(linear.weight, std=CONTRACTED / math.sqrt(K * senders))
        self.over = None if is_first else VectorsOver(v, K)
        self.products = nn.Linear(v, 2 * v, bias=False)
        self.first = nn.Linear(2 * h + v, 2 * h)
        self.last = nn.Linear(2 * h, h + v)

    def forward(
        self, hidden: Tensor, vectors: Tensor | None, elements: Tensor, around: Surroundings
    ) -> tuple[Tensor, Tensor]:
        """Update all atoms.

        Args:
            hidden: (B, N, h).
            vectors: (B, N, 3, v); None in the first layer.
            elements: (B, N, 5), one-hot: what the first layer sums over.
            around: Geometry.

        Returns:
            The new `hidden` and `vectors`.
        """
        B, N, _ = hidden.shape
        normed = self.norm(hidden)
        sent = self.send(elements if self.over is None else normed)  # (B, N, c)
        density = self.scalars_in((around.scalar @ sent).view(B, N, -1))  # (B, N, h)
        flow = self.vectors_in((around.vector @ sent).view(B, N, 3, -1))  # (B, N, 3, v)
        if self.over is not None and vectors is not None:
            flow = flow + vectors + self.over(vectors, around)
        left, right = self.products(flow).chunk(2, dim=3)
        angles = (left * right).sum(dim=2)  # (B, N, v)
        features = torch.cat([normed, F.silu(density), angles], dim=2)
        change, gate = self.last(F.silu(self.first(features))).split(
            [hidden.shape[2], self.vectors], dim=2
        )
        return hidden + change, flow * (1 + torch.tanh(gate))[:, :, None]


class DensityTrunk(nn.Module):
    """Embedded elements and rounds of `DensityLayer`: from geometries to what atoms know.

    The first round sums over one-hot elements: five numbers instead of h.
    """

    def __init__(self, config: DensityConfig) -> None:
        """Make the weights, initial ones from torch's global generator.

        Args:
            config: Widths and depths.
        """
        super().__init__()
        self.embedding = ElementEmbedding(config.hidden)
        self.basis = BesselBasis(config.radial, config.cutoff_angstrom)
        self.layers = nn.ModuleList(
            DensityLayer(config, config.channels if index else len(NUMBERS), is_first=index == 0)
            for index in range(config.layers)
        )

    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), scalars, and (B, N, 3, v), vectors; whatever where there is no atom.
        """
        around = self.surroundings(numbers, positions)
        elements = self.embedding.one_hot(numbers)  # (B, N, 5)
        hidden, vectors = self.embedding(numbers), None
        for layer in self.layers:
            hidden, vectors = layer(hidden, vectors, elements, around)
        assert vectors is not None  # there is at least one layer
        return hidden, vectors

    def surroundings(self, numbers: Tensor, positions: Tensor) -> Surroundings:
        """Geometry of a batch.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            Its matrices; zero where there is no pair.
        """
        B, N = numbers.shape
        pairs = pair_mask(numbers > 0)
        distances = pair_distances(positions, pairs)  # (B, N, N)
        radial = self.basis(distances) * pairs[..., None]  # (B, N, N, K)
        directions = (positions[:, None] - positions[:, :, None]) / distances[..., None]
        scalar = radial.permute(0, 1, 3, 2)  # (B, i, K, j)
        vector = directions.permute(0, 1, 3, 2)[:, :, :, None] * scalar[:, :, None]
        return Surroundings(
            scalar.reshape(B, -1, N),
            vector.reshape(B, -1, N),  # from (B, i, 3, K, j)
            radial,
        )
