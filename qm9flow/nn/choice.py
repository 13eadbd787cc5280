"""Which of a molecule's conformers is the one that is meant.

The conformer of lowest energy in a force field is the one that QM9 has for half of its molecules
only: QM9's came from rules, and from another method. What the network knows of a conformer, and its
energy, say more. Made after the training; it changes no value of a single geometry.
"""

from torch import Tensor, nn

from qm9flow.nn.trust import SEEN

WIDTH = 64


class Choice(nn.Module):
    """From a conformer's features to the logarithm of its weight, up to a constant.

    Weights of a molecule's conformers are softmax(logit - per_kcal * energy), energies in kcal/mol.

    Attributes:
        centre: (3 h,), mean of the training conformers' features.
        deviation: (3 h,), their standard deviation.
        per_kcal: (), weight of the force field's energy.
    """

    centre: Tensor
    deviation: Tensor

    def __init__(self, centre: Tensor, deviation: Tensor, *, dropout: float = 0.0) -> None:
        """Make it; before it is fitted all logits are zero.

        Args:
            centre: (3 h,).
            deviation: (3 h,).
            dropout: Of hidden values, while it is fitted.
        """
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("deviation", deviation)
        self.per_kcal = nn.Parameter(centre.new_ones(()))
        self.first = nn.Linear(len(centre), WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(WIDTH, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, features: Tensor) -> Tensor:
        """Look at conformers.

        Args:
            features: (G, 3 h), from `qm9flow.nn.trust.molecular_features`.

        Returns:
            (G,).
        """
        seen = ((features - self.centre) / self.deviation).clamp(-SEEN, SEEN)
        logits: Tensor = self.last(self.dropout(nn.functional.silu(self.first(seen))))
        return logits[:, 0]
