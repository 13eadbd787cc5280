"""From atoms to molecules, each target as physics makes it.

| targets | how |
| --- | --- |
| mu | length of sum_i (q_i d_i + p_i): atomic charges, neutral in sum, and atomic dipoles |
| r2 | sum_i (s_i + p_i . d_i - q_i |d_i|^2): electrons that a charge moved away from its nucleus; \
the nuclei's own extent is no matter of the network (`qm9flow.targets.TargetCodec`) |
| homo, lumo, ... | atomic values, averaged with weights that the network chooses, and what \
`qm9flow.nn.heads` sees of the molecule as a whole |
| extensive ones | sums of atomic values; U and G are U0 and a small term of their own |

with d_i the place of an atom from the centre of nuclear charge, in bohr. Dipoles and extents from
atomic contributions: K. Schuett et al., ICML 2021 (arXiv:2102.03150), section 4.3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qm9flow import properties
from qm9flow.nn.embedding import ElementEmbedding
from qm9flow.nn.heads import MolecularHeads, weighted_mean
from qm9flow.nn.moments import from_centre
from qm9flow.nn.readout import TYPICAL_ATOMS, linear
from qm9flow.units import BOHR_ANGSTROM

DIPOLE, EXTENT = "mu", "r2"
THERMAL = {"u": 0.023, "g": 0.05}
"""Standard deviation of U - U0 and G - U0 over QM9, beside that of U0, composition taken off."""
DIPOLE_UNIT = 1.7
"""One e bohr in standard deviations of QM9's dipole moments."""
EXTENT_UNIT = 0.22
"""One bohr^2 in standard deviations of what the nuclear extent and composition leave of r2."""
INITIAL_MOMENTS = 0.1
"""Initial size of charges and dipoles, beside that of other outputs. Times places they would be far
larger, and their gradients would drown all others' for hundreds of steps."""
ELECTRONEGATIVITY = (2.20, 2.55, 3.04, 3.44, 3.98)
"""Pauling's, of H, C, N, O and F."""
CARBON = ELECTRONEGATIVITY[1]
CHARGE_UNIT = 0.3
"""Fresh charges, in e for each unit of electronegativity, beside carbon's."""
ALIKE = 1e-2
"""Share of features' largest direction below which directions are noise."""
SHORTEST = 2.0**-10
"""Dipoles, in standard deviations, below which their length bends to zero. A power of two, whose
square and root are exact in float32 too, as graphs have it: no dipole is exactly no length."""


class MolecularReadout(nn.Module):
    """Dense layers on each atom with SiLU between, then one molecular value for each target.

    In evaluation mode computed in float64, as `qm9flow.nn.readout.Readout` and for its reasons.
    """

    def __init__(
        self,
        hidden: int,
        vectors: int,
        width: int,
        targets: Sequence[str],
        *,
        layers: int = 2,
        heads: int = 0,
    ) -> None:
        """Build the layers.

        Args:
            hidden: Scalars of an atom.
            vectors: Vectors of an atom; 0 where the network has none.
            width: Of all dense layers but the last.
            targets: Names of the targets, in the order of the outputs.
            layers: Dense layers in all, at least 1.
            heads: Means over a molecule that HOMO, LUMO and their like are read from, beside
                atomic values; 0 for none.
        """
        super().__init__()
        names = list(targets)
        self.sums = [n for n in names if properties.get(n).is_extensive]
        self.means = [n for n in names if n not in (*self.sums, DIPOLE, EXTENT)]
        self.moments = [n for n in (DIPOLE, EXTENT) if n in names]
        self.order = [(self.sums + self.means + self.moments).index(n) for n in names]
        self.sizes = [len(self.sums), len(self.means), len(self.means), len(self.moments), 1]
        self.first = nn.Linear(hidden, width) if layers > 1 else None
        self.between = nn.ModuleList(_inner_layer(width) for _ in range(layers - 2))
        self.last = nn.Linear(width if layers > 1 else hidden, sum(self.sizes))
        nn.init.zeros_(self.last.bias)
        self.dipoles = nn.Linear(vectors, len(self.moments), bias=False) if vectors else None
        has_heads = heads > 0 and len(self.means) > 0
        self.heads = MolecularHeads(hidden, heads, len(self.means)) if has_heads else None
        with torch.no_grad():
            _, _, _, charges, _ = self.last.weight.split(self.sizes)
            charges *= INITIAL_MOMENTS
            if self.dipoles is not None:
                self.dipoles.weight *= INITIAL_MOMENTS

    def start_charges(self, embedding: ElementEmbedding) -> None:
        """Let fresh charges be those that electronegativities would have, as far as elements go.

        Only the length of a dipole is learned from, so that any molecule's may point the wrong
        way. Where those of some kinds of molecules do and of others do not, no small step of the
        weights brings them together again, and what lies between is never learned well.

        Args:
            embedding: The network's, fresh.
        """
        if DIPOLE not in self.moments:
            return
        wanted = torch.tensor([CHARGE_UNIT * (CARBON - x) for x in ELECTRONEGATIVITY])
        with torch.no_grad():
            features = embedding.rows()
            for layer in [] if self.first is None else [self.first, *self.between]:
                features = F.silu(layer(features))
            # the smallest weights that give them, or nearly where elements' features are alike
            weights = torch.linalg.pinv(features, rtol=ALIKE) @ wanted
            _, _, _, charges, _ = self.last.weight.split(self.sizes)
            charges[self.moments.index(DIPOLE)] = weights

    def forward(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None = None
    ) -> Tensor:
        """Read out.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.
            hidden: (B, N, h), scalars.
            vectors: (B, N, 3, v).

        Returns:
            (B, T), encoded targets.
        """
        dtype = hidden.dtype
        if not self.training:
            hidden, positions = hidden.double(), positions.double()
            vectors = None if vectors is None else vectors.double()
        atoms = numbers[:, :, None] > 0  # (B, N, 1)
        outputs = torch.where(atoms, self._dense(hidden), 0.0)
        sums, means, weights, charges, spread = outputs.split(self.sizes, dim=2)
        average = weighted_mean(means, weights, atoms)  # (B, intensive)
        if self.heads is not None:
            average = average + self.heads(hidden, atoms)
        parts = [self._sums(sums), average]
        if self.moments:
            dipoles = charges[:, :, None] * 0.0  # (B, N, 1, q)
            if self.dipoles is not None and vectors is not None:
                dipoles = torch.where(atoms[..., None], linear(self.dipoles, vectors), 0.0)
            places = from_centre(numbers, positions) / BOHR_ANGSTROM  # (B, N, 3)
            parts.append(self._moments(places, _neutral(charges, atoms), dipoles, spread))
        return torch.cat(parts, dim=1)[:, self.order].to(dtype)

    def _dense(self, values: Tensor) -> Tensor:
        """(B, N, h) to (B, N, sum of `sizes`)."""
        inner = [] if self.first is None else [self.first, *self.between]
        for layer in inner:
            values = F.silu(linear(layer, values))
        return linear(self.last, values)

    def _sums(self, values: Tensor) -> Tensor:
        total = values.sum(dim=1) / math.sqrt(TYPICAL_ATOMS)  # (B, extensive)
        if not {"u0", *THERMAL} <= set(self.sums):
            return total
        by_name = dict(zip(self.sums, total.unbind(1), strict=True))
        for name, share in THERMAL.items():
            by_name[name] = by_name["u0"] + share * by_name[name]
        return torch.stack([by_name[name] for name in self.sums], dim=1)

    def _moments(self, places: Tensor, charges: Tensor, dipoles: Tensor, spread: Tensor) -> Tensor:
        """(B, N, 3), (B, N, q), (B, N, 3, q) and (B, N, 1) to (B, q)."""
        columns = []
        for index, name in enumerate(self.moments):
            charge, dipole = charges[:, :, index, None], dipoles[..., index]  # (B, N, 1), (B, N, 3)
            if name == DIPOLE:
                total = DIPOLE_UNIT * (charge * places + dipole).sum(dim=1)  # (B, 3)
                columns.append(_length(total))
            else:
                along = (dipole * places).sum(dim=2, keepdim=True)
                moved = charge * places.square().sum(dim=2, keepdim=True)
                columns.append(EXTENT_UNIT * (spread + along - moved).sum(dim=(1, 2)))
        return torch.stack(columns, dim=1)


def _inner_layer(width: int) -> nn.Linear:
    """With initial weights that keep values of their size, which torch's own make a third of."""
    layer = nn.Linear(width, width)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _neutral(charges: Tensor, atoms: Tensor) -> Tensor:
    """(B, N, q) charges without their mean: QM9's molecules are neutral."""
    count = atoms.sum(dim=1, keepdim=True).clamp(min=1).to(charges.dtype)
    return torch.where(atoms, charges - charges.sum(dim=1, keepdim=True) / count, 0.0)


def _length(vectors: Tensor) -> Tensor:
    """(B, 3) to (B,), exactly 0 for the zero vector and smooth there."""
    return (vectors.square().sum(dim=1) + SHORTEST**2).sqrt() - SHORTEST
