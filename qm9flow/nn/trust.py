"""How far a network's values may be off, and how strange a molecule is to it.

Made after the training, from what the network knows of a molecule; it changes no value.

The spread is what a small dense network expects of the absolute error, learned from the errors on
training molecules: it says where errors are larger, not how large they are, which calibration does.
Source: normalised conformal prediction, H. Papadopoulos, A. Gammerman, V. Vovk, AIA 2008. The
distance is that from the nearest of some training molecules that lie as far apart as possible (T.
Gonzalez, Theor. Comput. Sci. 38, 293 (1985)), in whitened features: from the middle of them all,
ethanol, of which QM9 has few neighbours, would be stranger than molecules that exist nowhere.
"""

import torch
from torch import Tensor, nn

SEEN = 5.0
"""Features are cut off here, in training standard deviations, before the spread: further out its
network has learned nothing, and the distance speaks."""
RANGE = 3.0
"""A spread is at most e^3 times the typical one, and at least e^-3 times."""
WIDTH = 64


def molecular_features(hidden: Tensor, numbers: Tensor) -> Tensor:
    """What a network knows of molecules, in rows of one length.

    Args:
        hidden: (B, N, h), scalars of the atoms.
        numbers: (B, N) int64, atomic numbers, 0 where there is no atom.

    Returns:
        (B, 3 h): mean, standard deviation and largest value over the atoms.
    """
    atoms = (numbers > 0)[:, :, None]
    count = atoms.sum(dim=1)  # (B, 1)
    mean = torch.where(atoms, hidden, 0.0).sum(dim=1) / count
    off = torch.where(atoms, hidden - mean[:, None], 0.0)
    deviation = (off.square().sum(dim=1) / count + 1e-12).sqrt()
    largest = torch.where(atoms, hidden, torch.finfo(hidden.dtype).min).amax(dim=1)
    return torch.cat([mean, deviation, largest], dim=1)


class Trust(nn.Module):
    """From a molecule's features to spreads and a distance.

    Attributes:
        centre: (3 h,), mean of the training molecules' features.
        deviation: (3 h,), their standard deviation.
        whiten: (3 h, D), standardised features to few that are uncorrelated, of size 1.
        examples: (E, D), training molecules there.
        typical: (S,), typical absolute errors, in the targets' units.
    """

    centre: Tensor
    deviation: Tensor
    whiten: Tensor
    examples: Tensor
    typical: Tensor

    def __init__(self, features: int, spreads: int, whiten: Tensor, examples: Tensor) -> None:
        """Make it, before its spreads are fitted.

        Args:
            features: 3 h.
            spreads: S.
            whiten: (3 h, D).
            examples: (E, D).
        """
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("whiten", whiten)
        self.register_buffer("examples", examples)
        self.register_buffer("typical", torch.ones(spreads))
        self.first = nn.Linear(features, WIDTH)
        self.last = nn.Linear(WIDTH, spreads)

    def log_spread(self, features: Tensor) -> Tensor:
        """Logarithms of spreads, in typical ones.

        Args:
            features: (B, 3 h).

        Returns:
            (B, S).
        """
        seen = ((features - self.centre) / self.deviation).clamp(-SEEN, SEEN)
        logarithms: Tensor = self.last(nn.functional.silu(self.first(seen)))
        return logarithms.clamp(-RANGE, RANGE)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Look at molecules.

        Args:
            features: (B, 3 h).

        Returns:
            (B, S), spreads in the targets' units, and (B,), distances from the nearest example.
        """
        spread = self.typical * self.log_spread(features).exp()
        # float64: differences of squares lose half of the digits
        standard = (features - self.centre).double() / self.deviation
        placed = standard @ self.whiten.double()  # (B, D)
        distances = squared_distances(placed, self.examples.double()).amin(dim=1).sqrt()
        return spread, distances.float()


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Between all points of two sets.

    Args:
        first: (n, D).
        second: (m, D).

    Returns:
        (n, m), never below 0.
    """
    sizes = first.square().sum(dim=1)[:, None] + second.square().sum(dim=1)
    return (sizes - 2 * first @ second.T).clamp(min=0.0)
