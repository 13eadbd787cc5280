"""From atoms to molecules."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow import properties

TYPICAL_ATOMS = 18
"""Mean number of atoms of QM9's molecules: sums are divided by it, so that they start as small as
means. A constant: they stay sums."""


class Pooling(nn.Module):
    """Atomic values to molecular ones: sums where the target is extensive, means elsewhere.

    So an extensive target of two molecules far apart is the sum of theirs.
    """

    is_extensive: Tensor

    def __init__(self, targets: Sequence[str]) -> None:
        """Look up which targets are extensive.

        Args:
            targets: Their names, in the order of the outputs.
        """
        super().__init__()
        flags = [properties.get(name).is_extensive for name in targets]
        self.register_buffer("is_extensive", torch.tensor(flags), persistent=False)

    def forward(self, values: Tensor, atoms: Tensor) -> Tensor:
        """Pool.

        Args:
            values: (B, N, T), whatever where there is no atom.
            atoms: (B, N) bool, where there is an atom.

        Returns:
            (B, T).
        """
        total = torch.where(atoms[:, :, None], values, 0.0).sum(dim=1)  # (B, T)
        count = atoms.sum(dim=1, keepdim=True).clamp(min=1).to(values.dtype)  # (B, 1)
        return torch.where(self.is_extensive, total / TYPICAL_ATOMS, total / count)


class Readout(nn.Module):
    """Dense layers on each atom with ReLU between, then `Pooling`.

    In evaluation mode computed in float64: rounding in these layers reaches the answer undamped,
    above all of small molecules, whose means average little of it out. In float32 it was two
    thirds of the distance between networks and their graphs, which is then more than
    `qm9flow.release.export` accepts. Training has no use for it, and would pay up to a quarter.
    """

    def __init__(self, hidden: int, layers: int, targets: Sequence[str]) -> None:
        """Build the layers.

        Args:
            hidden: Width of all layers but the last.
            layers: Dense layers in all, at least 1.
            targets: Names of the targets.
        """
        super().__init__()
        widths = [hidden] * layers + [len(targets)]
        stack: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            linear = nn.Linear(width_in, width_out)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            stack += [linear, nn.ReLU()]
        nn.init.xavier_normal_(linear.weight)
        self.dense = nn.Sequential(*stack[:-1])
        self.pooling = Pooling(targets)

    def forward(self, hidden: Tensor, atoms: Tensor) -> Tensor:
        """Read out.

        Args:
            hidden: (B, N, h).
            atoms: (B, N) bool, where there is an atom.

        Returns:
            (B, T), encoded targets.
        """
        if self.training:
            trained: Tensor = self.pooling(self.dense(hidden), atoms)
            return trained
        values = hidden.double()
        for layer in self.dense:
            values = linear(layer, values)
        pooled: Tensor = self.pooling(values, atoms)
        return pooled.to(hidden.dtype)


def linear(layer: nn.Module, values: Tensor) -> Tensor:
    """A dense layer in the precision of its input, whatever its weights are.

    Args:
        layer: An `nn.Linear`, or what has no weights.
        values: (..., n_in).

    Returns:
        (..., n_out), of the same type.
    """
    if isinstance(layer, nn.Linear) and values.dtype == torch.float64:
        return linear64(layer, values)
    result: Tensor = layer(values)
    return result


def linear64(layer: nn.Linear, values: Tensor) -> Tensor:
    """A dense layer in float64, whatever its weights are.

    Args:
        layer: Its weights.
        values: (..., n_in), float64.

    Returns:
        (..., n_out), float64.
    """
    bias = None if layer.bias is None else layer.bias.double()
    return F.linear(values, layer.weight.double(), bias)
