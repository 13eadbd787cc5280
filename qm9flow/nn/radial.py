"""Functions of a distance: Gaussians to see it by, weights to forget it by."""

import math

import torch
from torch import Tensor, nn

ENVELOPE_POWER = 6
"""The p of the envelope, as in its source."""
FARTHEST = 120.0
"""Squared distance from its centre, in spacings, from where on a Gaussian stays what it is: 1e-26.
Further out float32 has no normal numbers left, and exp takes nine times as long."""
GAUSSIAN_NORM = math.pi**0.25
"""Root of the sum of squares of Gaussians that stand one width apart."""
TYPICAL_NEIGHBOURS = 16
"""Atoms within 5 angstrom of an atom of QM9, on average."""


def envelope(distances: Tensor, cutoff_angstrom: float) -> Tensor:
    """A weight that falls smoothly from 1 at distance 0 to 0 at the cutoff.

    u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2) with x = distance / cutoff:
    value, first and second derivative vanish at the cutoff. Computed as

        u(x) = (1 - x)^3 sum_{k < p} (k+1)(k+2)/2 x^k,

    the same polynomial without differences: above, terms near 50 cancel to almost nothing towards
    the cutoff, and in float32 2e-6 of rounding is left. A network that sees far pairs there with
    large weights makes that so large that r2 differs more between torch and an exported graph
    than `qm9flow.release.export` accepts.

    Source: J. Gasteiger, J. Gross, S. Guennemann, ICLR 2020 (arXiv:2003.03123), eq. 8, p = 6.

    Args:
        distances: Any shape, angstrom, not negative.
        cutoff_angstrom: Where it vanishes.

    Returns:
        Same shape, between 0 and 1; 0 from the cutoff on.
    """
    x = distances / cutoff_angstrom
    highest, *lower = [math.comb(k + 2, 2) for k in reversed(range(ENVELOPE_POWER))]
    series = highest * x
    for coefficient in lower[:-1]:
        series = (series + coefficient) * x
    return (1 - x).clamp(min=0) ** 3 * (series + lower[-1])


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


def message_weight(distances: Tensor, cutoff_angstrom: float) -> Tensor:
    """The envelope, divided by the square root of the number of neighbours an atom of QM9 has.

    A sum over neighbours then has the size of one of them, and edge networks keep weights of
    ordinary size, that a step of the optimiser moves by an ordinary share.

    Args:
        distances: Any shape, angstrom, not negative.
        cutoff_angstrom: Where it vanishes.

    Returns:
        Same shape.
    """
    return envelope(distances, cutoff_angstrom) / math.sqrt(TYPICAL_NEIGHBOURS)


class GaussianBasis(nn.Module):
    """A distance as a row of Gaussians, evenly spaced from 0 to the cutoff.

    g_k(d) = exp(-(d - mu_k)^2 / (2 s^2)), s the spacing of the centres mu_k.

    Source: K. T. Schuett et al., NeurIPS 2017 (arXiv:1706.08566), section 4.2.
    """

    centres: Tensor

    def __init__(self, count: int, cutoff_angstrom: float) -> None:
        """Place the Gaussians.

        Args:
            count: How many, at least 2.
            cutoff_angstrom: Centre of the last one.
        """
        super().__init__()
        self.spacing = cutoff_angstrom / (count - 1)
        self.register_buffer(
            "centres", torch.linspace(0.0, cutoff_angstrom, count), persistent=False
        )

    def forward(self, distances: Tensor) -> Tensor:
        """Expand distances.

        Args:
            distances: Any shape, angstrom.

        Returns:
            The same shape and one more axis of `count`.
        """
        scaled = (distances[..., None] - self.centres) / self.spacing
        return torch.exp(-0.5 * scaled.square().clamp(max=FARTHEST))


class Edges(nn.Module):
    """What message passing needs to know about each pair of atoms.

    The radial functions and a constant, both times the weight of messages. The constant carries
    the bias of an edge network's first layer, so that relu(W g + b) times the weight is
    relu([W b] edges): the weight is not negative and moves inside.
    """

    def __init__(self, radial: int, cutoff_angstrom: float) -> None:
        """Place the Gaussians.

        Args:
            radial: How many Gaussians.
            cutoff_angstrom: Atoms further apart do not see each other.
        """
        super().__init__()
        self.cutoff_angstrom = cutoff_angstrom
        self.basis = GaussianBasis(radial, cutoff_angstrom)

    def forward(self, distances: Tensor, pairs: Tensor) -> Tensor:
        """Expand all pairs.

        Args:
            distances: (B, N, N), angstrom.
            pairs: (B, N, N) bool, where there is a pair.

        Returns:
            (B, N, N, R + 1), zero where there is no pair.
        """
        weight = message_weight(distances, self.cutoff_angstrom) * pairs  # (B, N, N)
        weight = weight[..., None]
        return torch.cat([self.basis(distances) * weight, weight], dim=-1)


class BesselBasis(nn.Module):
    """A distance as a row of spherical Bessel functions, each times the envelope.

    g_n(d) = u(d) sqrt(2 / c) sin(n pi d / c) / d, n = 1, 2, ...; c is the cutoff.

    Source: J. Gasteiger, J. Gross, S. Guennemann, ICLR 2020 (arXiv:2003.03123), eq. 7.
    """

    frequencies: Tensor

    def __init__(self, count: int, cutoff_angstrom: float) -> None:
        """Choose the frequencies.

        Args:
            count: How many, at least 1.
            cutoff_angstrom: Where all of them vanish.
        """
        super().__init__()
        self.cutoff_angstrom = cutoff_angstrom
        self.register_buffer(
            "frequencies",
            torch.arange(1, count + 1) * (math.pi / cutoff_angstrom),
            persistent=False,
        )

    def forward(self, distances: Tensor) -> Tensor:
        """Expand distances.

        Args:
            distances: Any shape, angstrom, above 0.

        Returns:
            The same shape and one more axis of `count`.
        """
        weight = math.sqrt(2 / self.cutoff_angstrom) * envelope(distances, self.cutoff_angstrom)
        waves = torch.sin(distances[..., None] * self.frequencies)
        return waves * (weight / distances)[..., None]
