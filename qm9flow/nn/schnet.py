"""SchNet: continuous filters over distances, each made once for both directions of a pair.

Source: K. T. Schuett et al., NeurIPS 2017 (arXiv:1706.08566). Deviations: a cosine weight on
messages that vanishes at the cutoff, as PyTorch Geometric's implementation has; and the readout of
`qm9flow.nn.readout`, for several targets at once.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from qm9flow.config import SchNetConfig
from qm9flow.elements import MAX_NUMBER
from qm9flow.nn.contract import Network
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.radial import TYPICAL_NEIGHBOURS, GaussianBasis
from qm9flow.nn.readout import Readout

INITIAL_SHARE = 0.5
"""Initial size of what an interaction adds, beside what it adds to."""
GAUSSIAN_NORM = math.pi**0.25
"""Root of the sum of squares of Gaussians that stand one width apart."""
SOFTPLUS_SIZE = 0.6
"""Root mean square of the shifted softplus of normal numbers."""


def cosine_cutoff(distances: Tensor, cutoff_angstrom: float) -> Tensor:
    """A weight that falls from 1 at distance 0 to 0 at the cutoff, where its slope vanishes too.

    (cos(pi x) + 1) / 2 with x = distance / cutoff, computed as sin^2(pi (1 - x) / 2): the same
    without a difference of nearly equal numbers towards the cutoff, and exactly 0 from there on.

    Source: J. Behler, M. Parrinello, Phys. Rev. Lett. 98, 146401 (2007), eq. 3.

    Args:
        distances: Any shape, angstrom, not negative.
        cutoff_angstrom: Where it vanishes.

    Returns:
        Same shape, between 0 and 1.
    """
    inside = (1 - distances / cutoff_angstrom).clamp(min=0)
    return torch.sin(0.5 * math.pi * inside).square()


def takes_all_pairs(like: Tensor) -> bool:
    """Whether to compute both directions of each pair with few large operations.

    Elsewhere, on a CPU, half the filters in operations small enough for its caches are faster.

    Args:
        like: On the device that computes.

    Returns:
        True on a GPU, and in graphs, where no loop over an unknown number of atoms has a place.
    """
    return torch.compiler.is_exporting() or like.device.type != "cpu"


def half_of_pairs(N: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Each pair of atoms once: atom i and atom i + s, around the end, for s = 1 to N / 2.

    In this order a sum over neighbours needs no index: row s meets the atoms shifted by s. With
    an even number of atoms the last row has its pairs in both directions.

    Args:
        N: Atoms of a molecule.
        device: Where the indices are needed.

    Returns:
        (S, N) and (S, N) int64 with S = N // 2: the first and the second atom.
    """
    first = torch.arange(N, device=device).expand(N // 2, N)
    shifts = torch.arange(1, N // 2 + 1, device=device)
    return first, (first + shifts[:, None]) % N


def filtered_sum(filters: Tensor, features: Tensor) -> Tensor:
    """Sum filtered features over neighbours: out_i = sum_j W_ij * x_j, channel by channel.

    Because W_ij = W_ji, dense layers make half of the filters, and the sum over neighbours is its
    own derivative. Applying a filter's last layer per atom instead, as `qm9flow.nn.messages` does,
    would not pay: for each atom and channel that keeps as many numbers as the layer has inputs,
    and a filter for each pair as many as there are neighbours, 18.

    Args:
        filters: (B, S, N, F) in the order of `half_of_pairs`, or (B, N, N, F), symmetric, where
            `takes_all_pairs`.
        features: (B, N, F), or (B, 3, N, F) for vectors.

    Returns:
        The shape of `features`. Differentiable once in both arguments.
    """
    if takes_all_pairs(features):
        if features.dim() == 4:
            filters = filters[:, None]
        return (filters * features.unsqueeze(-3)).sum(dim=-2)
    summed: Tensor = _FilteredSum.apply(filters, features)
    return summed


def twice(features: Tensor) -> Tensor:
    """Atoms one after the other and then again: a slice of N is a shift around the end.

    Args:
        features: (..., N, F).

    Returns:
        (..., 2 N, F).
    """
    return torch.cat([features, features], dim=-2)


def folded(sums: Tensor) -> Tensor:
    """What was added to atoms beyond the end, added to those it was meant for.

    Args:
        sums: (..., 2 N, F).

    Returns:
        (..., N, F).
    """
    head, tail = sums.chunk(2, dim=-2)
    return head + tail


def _channels(features: Tensor) -> tuple[Tensor, ...]:
    return features.unbind(dim=1) if features.dim() == 4 else (features,)


def _shifted_sum(filters: Tensor, features: Tensor, shifted: Tensor) -> Tensor:
    """Of features that `shifted` holds twice."""
    N = features.shape[-2]
    sums = torch.zeros_like(shifted)
    channels = [_channels(tensor) for tensor in (features, shifted, sums)]
    for s, weight in enumerate(filters.unbind(dim=1), start=1):
        for x, x2, out in zip(*channels, strict=True):
            out[:, :N].addcmul_(weight, x2[:, s : s + N])
            if 2 * s < N:
                out[:, s : s + N].addcmul_(weight, x)
    return folded(sums)


class _FilteredSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, filters: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(filters, features)
        return _shifted_sum(filters, features, twice(features))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        filters, features = ctx.saved_tensors
        N = features.shape[-2]
        shifted, grad_shifted = twice(features), twice(grad)
        grad_filters = torch.empty_like(filters)
        channels = [_channels(t) for t in (features, shifted, grad, grad_shifted)]
        for s, out in enumerate(grad_filters.unbind(dim=1), start=1):
            for c, (x, x2, g, g2) in enumerate(zip(*channels, strict=True)):
                if c == 0:
                    torch.mul(g, x2[:, s : s + N], out=out)
                else:
                    out.addcmul_(g, x2[:, s : s + N])
                if 2 * s < N:
                    out.addcmul_(g2[:, s : s + N], x)
        return grad_filters, _shifted_sum(filters, grad, grad_shifted)


class ShiftedSoftplus(nn.Module):
    """ln(1 + e^x) - ln 2: smooth, and 0 at 0.

    Subtracted here and not in the bias of the next layer, which would save a pass: that bias is a
    sum of many weights, and its rounding, the same for all atoms, was most of what r2 differs by
    between torch and an exported graph.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
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
    """Embedded elements, interactions, dense layers, sum or mean over atoms."""

    def __init__(self, config: SchNetConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__()
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.embedding = nn.Embedding(MAX_NUMBER + 1, config.hidden, padding_idx=0)
        self.basis = GaussianBasis(config.radial, config.cutoff_angstrom)
        self.interactions = nn.ModuleList(
            Interaction(config.hidden, config.radial) for _ in range(config.interactions)
        )
        self.readout = Readout(config.hidden, config.fc_layers, targets)

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """Predict encoded targets.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, T), encoded targets.
        """
        encoded: Tensor = self.readout(self.represent(numbers, positions), numbers > 0)
        return encoded

    def represent(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, h), whatever where there is no atom.
        """
        pairs = pair_mask(numbers > 0)
        distances = pair_distances(positions, pairs)
        if not takes_all_pairs(positions):
            i, j = half_of_pairs(numbers.shape[1], numbers.device)
            distances, pairs = distances[:, i, j], pairs[:, i, j]  # (B, S, N)
        functions = self.basis(distances)
        weight = (cosine_cutoff(distances, self.cutoff_angstrom) * pairs)[..., None]
        hidden: Tensor = self.embedding(numbers)  # (B, N, h)
        for interaction in self.interactions:
            hidden = hidden + interaction(hidden, functions, weight)
        return hidden
