"""From a force field's minimum to the minimum in DFT next to it.

A force field errs in the same way wherever the surroundings are the same, so that its errors can be
learned: bond lengths, angles, and torsions as far as they are determined. What then predicts
properties sees nearly the geometry that they are of. A second look, from the first one's answer,
corrects what the first one made of atoms whose neighbours were off.

Sources of the idea: a geometry learned beside the property that is wanted from a cheaper one,
GeoTMI, H. Kim et al. (arXiv:2304.03724); from MMFF94's to DFT's geometries by a network, R-DSM,
arXiv:2411.19769.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from qm9flow.config import DensityConfig, ModelConfig
from qm9flow.errors import ConfigError
from qm9flow.inference.domain import QM9_MIN_ATOMS
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.trunk import DensityTrunk
from qm9flow.nn.weights import misfit

ROUNDS = 2
"""Looks at a geometry, by the same weights. After as many minutes of training, distances of bonded
atoms are off by 2.4 thousandths of an angstrom after two and by 2.6 after one; MMFF94's by 10."""

NEAREST_ANGSTROM = 0.9
"""Atoms never come nearer to each other: in QM9's geometries it is 0.959 at least, in MMFF94's
0.967. What was refined to less is far from all that the weights were trained on."""

FARTHEST_ANGSTROM = 10.0
"""No atom is moved farther: of 6,000 molecules of QM9 it is 2.6 at most, where MMFF94 has turned a
torsion. Atoms that are given far too close to each other fly apart, or nowhere that is a number."""

NEIGHBOURS_ANGSTROM = 1.6
"""Atoms this near are bonded, or nearly; of QM9's bonds hardly any is longer."""

STRETCH_ANGSTROM = 0.5
"""Neighbours neither part nor come nearer by more: of 1,000 geometries of QM9's molecules by MMFF94
those of 999 change by 0.2 at most. Where a network has learned nothing, as of two atoms alone or of
atoms moved by 0.1 angstrom at random, it may tear a molecule apart."""

_SMALL = 1e-3
"""Initial size of what moves atoms: nearly nothing, but gradients reach all layers."""


class Refiner(DensityTrunk):
    """Moves atoms along the vectors that they know; turns and mirrors with the molecule."""

    def __init__(self, config: DensityConfig) -> None:
        """Make the weights, initial ones from torch's global generator.

        Args:
            config: Widths and depths of the trunk.
        """
        super().__init__(config)
        self.gate = nn.Linear(config.hidden, config.vectors)
        self.move = nn.Linear(config.vectors, 1, bias=False)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)
        nn.init.normal_(self.move.weight, std=_SMALL)

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """Refine, and tell what came out of each look.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (ROUNDS, B, N, 3), angstrom.
        """
        found = []
        for _ in range(ROUNDS):
            hidden, vectors = self.represent(numbers, positions)
            moved = self.move(vectors * (1 + self.gate(hidden))[:, :, None])[..., 0]  # (B, N, 3)
            positions = positions + moved * (numbers > 0)[..., None]
            found.append(positions)
        return torch.stack(found)

    def refined(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """Refine, but leave alone the molecules that this would make nonsense of.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, N, 3), angstrom.
        """
        found: Tensor = self(numbers, positions)[-1]
        is_kept = is_sound(numbers > 0, positions, found)
        return torch.where(is_kept[:, None, None], found, positions)


def is_sound(atoms: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Whether atoms do not collide or fly away, and neighbours stay neighbours.

    Each is compared by itself: ONNX Runtime's minimum of NaN and 1 may be 1.

    Args:
        atoms: (B, N) bool, where there is an atom.
        before: (B, N, 3), angstrom, as given.
        after: (B, N, 3), angstrom, as refined.

    Returns:
        (B,) bool.
    """
    pairs = pair_mask(atoms)
    given, found = pair_distances(before, pairs), pair_distances(after, pairs)
    is_apart = found > NEAREST_ANGSTROM
    is_kept = ((found - given).abs() < STRETCH_ANGSTROM) | (given > NEIGHBOURS_ANGSTROM)
    is_near = ((after - before).square().sum(dim=2) < FARTHEST_ANGSTROM**2) | ~atoms
    is_large = atoms.sum(dim=1) >= QM9_MIN_ATOMS  # of fewer nothing was learned
    return (is_apart & is_kept).flatten(1).all(dim=1) & is_near.all(dim=1) & is_large


def make_refiner(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Refiner:
    """A refiner with its weights.

    Args:
        config: Of the network whose geometries it refines; it has the network's own widths.
        tensors: By name.

    Returns:
        On the CPU, in evaluation mode, not to be trained.

    Raises:
        ConfigError: They are another network's.
    """
    if not isinstance(config, DensityConfig):
        raise ConfigError("geometries are refined for networks of the architecture density only")
    with torch.random.fork_rng(devices=[]):  # initial weights are overwritten at once
        refiner = Refiner(config)
    if problem := misfit(refiner.state_dict(), tensors):
        raise ConfigError(f"these weights refine no geometries: {problem}")
    refiner.load_state_dict(dict(tensors))
    return refiner.requires_grad_(False).eval()
