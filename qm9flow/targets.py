"""Targets in float64: encode and decode what a network learns, derive what it need not.

Identities used (they hold in QM9 to its rounding): gap = LUMO - HOMO, H = U + R T, atomization
energies are totals minus the energies of the free atoms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from qm9flow import elements, properties
from qm9flow.properties import GEOMETRIC, TARGETS
from qm9flow.units import HARTREE_EV, RT_EV

Array = npt.NDArray[np.float64]

_EXTENTS = ("r2",)
"""Targets of which the nuclear extent is a known part."""
_LENGTHS = ("mu",)
"""Targets that are lengths of vectors: their zero means zero, an offset would hide it."""
CLOSE = 1e-6
"""Encoded values that differ by less are the same: fits on two machines agree to about 1e-10."""
LARGE = 100
"""Atoms of one element in a molecule, as `TargetCodec.is_close` looks at codecs."""
_TOTAL_OF_ATOMIZATION = {"u0_atom": "u0", "u_atom": "u", "h_atom": "h", "g_atom": "g"}


def free_atom_energies_ev(total: str) -> Array:
    """Energies of the free atoms.

    Args:
        total: `u0`, `u`, `h` or `g`.

    Returns:
        (MAX_NUMBER + 1,), eV, indexed by atomic number.
    """
    return elements.by_number(f"{total}_hartree") * HARTREE_EV


def derive(learned: Mapping[str, Array], counts: Array, rotational_ghz: Array) -> dict[str, Array]:
    """All 19 targets from the learned ones, the composition and the geometry.

    Args:
        learned: (n_molecules,) for each learned target, in its unit.
        counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
        rotational_ghz: (n_molecules, 3), A, B and C in GHz.

    Returns:
        (n_molecules,) for each of the 19 targets, in their order.
    """
    values = dict(learned)
    values["gap"] = values["lumo"] - values["homo"]
    values["h"] = values["u"] + RT_EV
    for name, total in _TOTAL_OF_ATOMIZATION.items():
        values[name] = values[total] - counts @ free_atom_energies_ev(total)
    for column, name in enumerate(GEOMETRIC):
        values[name] = rotational_ghz[:, column]
    return {name: np.asarray(values[name], dtype=np.float64) for name in TARGETS}


@dataclass(frozen=True)
class TargetCodec:
    """Between physical values and what a network learns.

    encoded = (value - counts @ references - extent * spread - offset) / scale, all in float64.

    | target | references | spread | offset |
    | --- | --- | --- | --- |
    | extensive ones | least squares, no intercept: they stay extensive | 0 | 0 |
    | r2 | least squares | 1 a0^2 for each a0^2 of nuclear extent | 0 |
    | mu | 0 | 0 | 0: a length, which a network gives as one |
    | homo, lumo | 0 | 0 | mean |

    `raw` sets have none of them. Electrons stay near their nuclei, so the electronic spatial
    extent is the nuclear one (each nucleus's charge times its squared distance from the centre
    of charge), a constant for each atom, and a rest of 1.6% of r2's standard deviation.

    Attributes:
        names: The targets, in the network's order.
        references: (MAX_NUMBER + 1, n_targets), in the targets' units.
        spread: (n_targets,), in the targets' units for each bohr^2 of nuclear extent.
        offset: (n_targets,), in the targets' units.
        scale: (n_targets,), in the targets' units: the training standard deviation of what is
            left after references and offset.
    """

    names: tuple[str, ...]
    references: Array
    spread: Array
    offset: Array
    scale: Array

    @classmethod
    def fit(
        cls, names: Sequence[str], counts: Array, extents: Array, values: Array
    ) -> "TargetCodec":
        """Fit references, offset and scale on training molecules.

        Args:
            names: Targets, in order.
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            extents: (n_molecules,), nuclear extent, bohr^2.
            values: (n_molecules, n_targets), in the targets' units.

        Returns:
            The codec.
        """
        spread = np.array([float(name in _EXTENTS) for name in names])
        rest = values - np.outer(extents, spread)
        is_composed = np.array([properties.get(name).is_extensive for name in names]) | (spread > 0)
        references = np.zeros((counts.shape[1], len(names)))
        fitted, *_ = np.linalg.lstsq(counts, rest[:, is_composed], rcond=None)
        references[:, is_composed] = fitted
        rest -= counts @ references
        is_centred = ~is_composed & ~np.isin(names, _LENGTHS)
        offset = np.where(is_centred, rest.mean(axis=0), 0.0)
        scale = rest.std(axis=0)
        return cls(tuple(names), references, spread, offset, np.where(scale > 0, scale, 1.0))

    def is_close(self, other: "TargetCodec") -> bool:
        """Whether a network's numbers mean the same under both.

        Args:
            other: Another codec.

        Returns:
            True where the same value is encoded to within `CLOSE` by both, whatever molecule of
            up to `LARGE` atoms it is of.
        """
        if self.names != other.names:
            return False
        parts = (self.references * LARGE, self.spread, self.offset, self.scale)
        others = (other.references * LARGE, other.spread, other.offset, other.scale)
        return all(
            bool((np.abs(mine - theirs) <= CLOSE * other.scale).all())
            for mine, theirs in zip(parts, others, strict=True)
        )

    @classmethod
    def identity(cls, names: Sequence[str]) -> "TargetCodec":
        """A codec that changes nothing: the network learns physical values as they are.

        Args:
            names: Targets, in order.

        Returns:
            The codec.
        """
        width = len(names)
        references = np.zeros((elements.MAX_NUMBER + 1, width))
        return cls(tuple(names), references, np.zeros(width), np.zeros(width), np.ones(width))

    def known(self, counts: Array, extents: Array) -> Array:
        """The part of the targets that needs no learning.

        Args:
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            extents: (n_molecules,), nuclear extent, bohr^2.

        Returns:
            (n_molecules, n_targets), in the targets' units.
        """
        return np.asarray(counts @ self.references + np.outer(extents, self.spread) + self.offset)

    def encode(self, counts: Array, extents: Array, values: Array) -> Array:
        """Physical values to what the network learns.

        Args:
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            extents: (n_molecules,), nuclear extent, bohr^2.
            values: (n_molecules, n_targets), in the targets' units.

        Returns:
            (n_molecules, n_targets), dimensionless, float64.
        """
        return np.asarray((values - self.known(counts, extents)) / self.scale)

    def decode(self, counts: Array, extents: Array, encoded: Array) -> Array:
        """What the network predicts back to physical values.

        Args:
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            extents: (n_molecules,), nuclear extent, bohr^2.
            encoded: (n_molecules, n_targets), dimensionless.

        Returns:
            (n_molecules, n_targets), in the targets' units, float64.
        """
        encoded = np.asarray(encoded, dtype=np.float64)
        return np.asarray(encoded * self.scale + self.known(counts, extents))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values.

        Returns:
            What `from_dict` reads.
        """
        return {
            "names": list(self.names),
            "references": self.references.tolist(),
            "spread": self.spread.tolist(),
            "offset": self.offset.tolist(),
            "scale": self.scale.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TargetCodec":
        """The codec that `to_dict` wrote.

        Args:
            data: What `to_dict` gave.

        Returns:
            The codec.
        """
        arrays = (
            np.asarray(data[key], dtype=np.float64)
            for key in ("references", "spread", "offset", "scale")
        )
        return cls(tuple(data["names"]), *arrays)
