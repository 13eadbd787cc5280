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

    encoded = (value - counts @ references - offset) / scale, all in float64. Extensive targets
    have per-element references (a least-squares fit, no intercept, so that they stay extensive)
    and no offset; the others have an offset and no references. `raw` sets have neither.

    Attributes:
        names: The targets, in the network's order.
        references: (MAX_NUMBER + 1, n_targets), in the targets' units.
        offset: (n_targets,), in the targets' units.
        scale: (n_targets,), in the targets' units: the training standard deviation of what is
            left after references and offset.
    """

    names: tuple[str, ...]
    references: Array
    offset: Array
    scale: Array

    @classmethod
    def fit(cls, names: Sequence[str], counts: Array, values: Array) -> "TargetCodec":
        """Fit references, offset and scale on training molecules.

        Args:
            names: Targets, in order.
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            values: (n_molecules, n_targets), in the targets' units.

        Returns:
            The codec.
        """
        extensive = np.array([properties.get(name).is_extensive for name in names])
        references = np.zeros((counts.shape[1], len(names)))
        fitted, *_ = np.linalg.lstsq(counts, values[:, extensive], rcond=None)
        references[:, extensive] = fitted
        rest = values - counts @ references
        offset = np.where(extensive, 0.0, rest.mean(axis=0))
        scale = (rest - offset).std(axis=0)
        return cls(tuple(names), references, offset, np.where(scale > 0, scale, 1.0))

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
        return cls(tuple(names), references, np.zeros(width), np.ones(width))

    def encode(self, counts: Array, values: Array) -> Array:
        """Physical values to what the network learns.

        Args:
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            values: (n_molecules, n_targets), in the targets' units.

        Returns:
            (n_molecules, n_targets), dimensionless, float64.
        """
        return np.asarray((values - counts @ self.references - self.offset) / self.scale)

    def decode(self, counts: Array, encoded: Array) -> Array:
        """What the network predicts back to physical values.

        Args:
            counts: (n_molecules, MAX_NUMBER + 1), atoms of each atomic number.
            encoded: (n_molecules, n_targets), dimensionless.

        Returns:
            (n_molecules, n_targets), in the targets' units, float64.
        """
        encoded = np.asarray(encoded, dtype=np.float64)
        return np.asarray(encoded * self.scale + self.offset + counts @ self.references)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values.

        Returns:
            What `from_dict` reads.
        """
        return {
            "names": list(self.names),
            "references": self.references.tolist(),
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
            np.asarray(data[key], dtype=np.float64) for key in ("references", "offset", "scale")
        )
        return cls(tuple(data["names"]), *arrays)
