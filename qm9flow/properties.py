"""The 19 targets: names, order, units, raw columns. The only place that knows them.

Names, order and units are those of PyTorch Geometric's `QM9`; the raw columns and units are those
of the tables in the package `qm9pack`.

Sources: R. Ramakrishnan, P. O. Dral, M. Rupp, O. A. von Lilienfeld, Sci. Data 1, 140022 (2014),
Table 3; chemical accuracy: F. A. Faber et al., J. Chem. Theory Comput. 13, 5255 (2017) as used in
J. Gilmer et al., ICML 2017 (arXiv:1704.01212), Table 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qm9flow.errors import UnknownTargetError
from qm9flow.units import HARTREE_EV

Origin = Literal["learned", "derived", "geometric"]


@dataclass(frozen=True)
class Property:
    """One target.

    Attributes:
        name: Its name everywhere: options, metrics, tables, HTTP.
        description: What it is, in words.
        unit: Unit of all values that qm9flow shows.
        raw_column: Column of the raw table, None for targets that only follow from others.
        raw_to_unit: Factor from the raw column's unit to `unit`.
        is_extensive: Whether it adds up over molecules far apart.
        origin: `learned` by the network, `derived` from learned ones by an identity, or
            `geometric`: from the geometry alone.
        chemical_accuracy: The error, in `unit`, that chemists take as good enough; None where
            the literature names none.
    """

    name: str
    description: str
    unit: str
    raw_column: str | None
    raw_to_unit: float
    is_extensive: bool
    origin: Origin
    chemical_accuracy: float | None


_EV = HARTREE_EV

PROPERTIES: tuple[Property, ...] = (
    Property("mu", "dipole moment", "D", "Dipole_debye", 1.0, False, "learned", 0.1),
    Property(
        "alpha",
        "isotropic polarizability",
        "a0^3",
        "Polarizability_bohr3",
        1.0,
        True,
        "learned",
        0.1,
    ),
    Property("homo", "energy of the HOMO", "eV", "HOMO_au", _EV, False, "learned", 0.043),
    Property("lumo", "energy of the LUMO", "eV", "LUMO_au", _EV, False, "learned", 0.043),
    Property("gap", "LUMO minus HOMO", "eV", "HOMO_LUMO_gap_au", _EV, False, "derived", 0.043),
    Property("r2", "electronic spatial extent", "a0^2", "R2_bohr2", 1.0, False, "learned", 1.2),
    Property(
        "zpve", "zero-point vibrational energy", "eV", "ZPVE_au", _EV, True, "learned", 0.0012
    ),
    Property("u0", "energy at 0 K", "eV", "InternalEnergy_0K_au", _EV, True, "learned", 0.043),
    Property(
        "u",
        "internal energy at 298.15 K",
        "eV",
        "InternalEnergy_298K_au",
        _EV,
        True,
        "learned",
        0.043,
    ),
    Property("h", "enthalpy at 298.15 K", "eV", "Enthalphy_298K_au", _EV, True, "derived", 0.043),
    Property(
        "g", "free energy at 298.15 K", "eV", "GibbsFreeEnergy_298K_au", _EV, True, "learned", 0.043
    ),
    Property(
        "cv",
        "heat capacity at 298.15 K",
        "cal/(mol K)",
        "Heatcapacity_Cv_cal_mol_K",
        1.0,
        True,
        "learned",
        0.05,
    ),
    Property("u0_atom", "atomization energy at 0 K", "eV", None, _EV, True, "derived", 0.043),
    Property("u_atom", "atomization energy at 298.15 K", "eV", None, _EV, True, "derived", 0.043),
    Property("h_atom", "atomization enthalpy at 298.15 K", "eV", None, _EV, True, "derived", 0.043),
    Property(
        "g_atom", "atomization free energy at 298.15 K", "eV", None, _EV, True, "derived", 0.043
    ),
    Property("a", "rotational constant A", "GHz", "RotA_GHz", 1.0, False, "geometric", None),
    Property("b", "rotational constant B", "GHz", "RotB_GHz", 1.0, False, "geometric", None),
    Property("c", "rotational constant C", "GHz", "RotC_GHz", 1.0, False, "geometric", None),
)

BY_NAME: dict[str, Property] = {item.name: item for item in PROPERTIES}
TARGETS: tuple[str, ...] = tuple(item.name for item in PROPERTIES)
LEARNED: tuple[str, ...] = tuple(item.name for item in PROPERTIES if item.origin == "learned")
GEOMETRIC: tuple[str, ...] = tuple(item.name for item in PROPERTIES if item.origin == "geometric")
RAW_COLUMNS: tuple[str, ...] = tuple(item.raw_column for item in PROPERTIES if item.raw_column)

TargetSet = Literal["learned", "raw"]

TARGET_SETS: dict[str, tuple[str, ...]] = {"learned": LEARNED, "raw": TARGETS}
"""What a network may predict: the ten learned targets, standardised, or all 19 as they are."""


def get(name: str) -> Property:
    """The property of that name.

    Args:
        name: One of `TARGETS`.

    Returns:
        Its row of the table.

    Raises:
        UnknownTargetError: There is no such target.
    """
    if name not in BY_NAME:
        known = ", ".join(TARGETS)
        raise UnknownTargetError(f"unknown target {name!a:.60}; the targets are {known}")
    return BY_NAME[name]


def spread_names(targets: Sequence[str]) -> tuple[str, ...]:
    """Targets whose errors a network has to be asked about; those of others follow.

    Args:
        targets: What the network predicts.

    Returns:
        What it learned, and the gap, whose error is not that of HOMO and LUMO together; without
        what the geometry says.
    """
    names = [name for name in targets if name not in GEOMETRIC]
    return tuple(names) if "gap" in names else (*names, "gap")


SPREAD_OF = {"h": "u", "u0_atom": "u0", "u_atom": "u", "h_atom": "u", "g_atom": "g"}
"""Targets that differ from another one by what is known, and so err as that one does."""
