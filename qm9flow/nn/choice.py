"""Which of a molecule's conformers is the one that is meant.

QM9's conformers came from rules and were relaxed by other methods than a force field: for half of
the molecules they are not the ones of its lowest energy. What an atom knows of its surroundings
tells the rules.

One network alone soon knows its molecules by heart, and is then as sure of others. Members that
learned from differently weighted molecules err differently there: on 3,378 validation molecules the
mean of two networks' logits has a cross entropy of 0.553, where each has 0.612 and 0.616, and is
right for 79.0% instead of 77.1% and 77.6%.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.config import DensityConfig
from qm9flow.nn.trunk import DensityTrunk

MEMBERS = 2
"""Networks whose logits are averaged."""

_PER_MOLECULE = 4.0
"""Sums over atoms are divided by it: about the root of their number."""
_KCAL = 3.0
"""Energies are divided by it, kcal/mol: about what conformers differ by."""


class Choice(nn.Module):
    """Several networks, each with its own opinion of conformers."""

    def __init__(self, config: DensityConfig, members: int = MEMBERS) -> None:
        """Make the weights, initial ones from torch's global generator.

        Args:
            config: Widths and depths of each member's trunk.
            members: How many.
        """
        super().__init__()
        self.members = nn.ModuleList(Member(config) for _ in range(members))

    def forward(self, numbers: Tensor, positions: Tensor, energies: Tensor | None = None) -> Tensor:
        """Look at conformers.

        Args:
            numbers: (G, N) int64, atomic numbers, 0 where there is no atom.
            positions: (G, N, 3), angstrom, minima of the force field.
            energies: (G,), kcal/mol above the molecule's lowest; None means they are all that.

        Returns:
            (G, M), each member's; weights of a molecule's conformers are the softmax of their mean.
        """
        return torch.stack([each(numbers, positions, energies) for each in self.members], dim=1)


class Member(DensityTrunk):
    """From a conformer and its energy to the logarithm of its weight, up to a constant."""

    def __init__(self, config: DensityConfig) -> None:
        """Make the weights, initial ones from torch's global generator.

        Args:
            config: Widths and depths of the trunk.
        """
        super().__init__(config)
        h = config.hidden
        self.atom = nn.Linear(h + config.vectors, h)
        self.first = nn.Linear(h + 1, h)
        self.last = nn.Linear(h, 1)
        self.per_kcal = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.per_kcal.weight, 1.0)

    def forward(self, numbers: Tensor, positions: Tensor, energies: Tensor | None = None) -> Tensor:
        """Look at conformers.

        Args:
            numbers: As in `Choice.forward`.
            positions: The same.
            energies: The same.

        Returns:
            (G,), logarithms of weights, up to a constant of each molecule's.
        """
        hidden, vectors = self.represent(numbers, positions)
        known = torch.cat([hidden, vectors.square().sum(dim=2)], dim=2)
        atoms = F.silu(self.atom(known)) * (numbers > 0)[..., None]
        if energies is None:
            energies = positions.new_zeros(len(numbers))
        above = energies[:, None]
        seen = torch.cat([atoms.sum(dim=1) / _PER_MOLECULE, above / _KCAL], dim=1)
        logits: Tensor = self.last(F.silu(self.first(seen))) - self.per_kcal(above)
        return logits[:, 0]
