"""A molecule as a whole, for targets that are no sum of atomic ones.

An orbital spreads over part of a molecule. Each head is a mean of an atomic value, with weights
that the network chooses: where it looks. Dense layers then see all heads of a molecule at once.
Source: pooling by attention, J. Lee et al., "Set Transformer", ICML 2019 (arXiv:1810.00825),
section 3.2; here the weights are dense layers' outputs, without queries and keys.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow.nn.readout import linear

FAR = -1e9
"""Weight, before the exponential, of what is no atom."""


class MolecularHeads(nn.Module):
    """Atomic scalars to heads, heads to molecular values; zero before training."""

    def __init__(self, hidden: int, heads: int, outputs: int) -> None:
        """Build the layers.

        Args:
            hidden: Scalars of an atom.
            heads: Means over a molecule.
            outputs: Values of a molecule.
        """
        super().__init__()
        self.atoms = nn.Linear(hidden, hidden)
        self.heads = nn.Linear(hidden, 2 * heads)
        self.first = nn.Linear(heads, 2 * heads)
        self.last = nn.Linear(2 * heads, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, hidden: Tensor, atoms: Tensor) -> Tensor:
        """Look at molecules.

        Args:
            hidden: (B, N, h); in float64 if the layers are to be computed in it.
            atoms: (B, N, 1) bool, where there is an atom.

        Returns:
            (B, outputs).
        """
        values, weights = linear(self.heads, F.silu(linear(self.atoms, hidden))).chunk(2, dim=2)
        means = weighted_mean(values, weights, atoms)  # (B, heads)
        return linear(self.last, F.silu(linear(self.first, means)))


def weighted_mean(values: Tensor, weights: Tensor, atoms: Tensor) -> Tensor:
    """Means over a molecule's atoms.

    Args:
        values: (B, N, n), finite, whatever where there is no atom.
        weights: (B, N, n), before the exponential.
        atoms: (B, N, 1) bool, where there is an atom.

    Returns:
        (B, n).
    """
    shares = torch.where(atoms, weights, FAR).softmax(dim=1)
    return (shares * values).sum(dim=1)
