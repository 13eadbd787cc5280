"""The five elements of QM9: symbols, isotopic masses, energies of the free atoms.

Sources: masses of the most abundant isotopes, M. Wang et al., Chinese Phys. C 45, 030003 (2021)
(AME2020); free-atom energies at B3LYP/6-31G(2df,p), R. Ramakrishnan et al., Sci. Data 1, 140022
(2014), file `atomref`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_NUMBER = 9
"""Largest atomic number that the networks know; 0 stands for padding."""


@dataclass(frozen=True)
class Element:
    """One element.

    Attributes:
        number: Atomic number.
        symbol: Chemical symbol.
        mass_u: Mass of the most abundant isotope, in u.
        u0_hartree: Energy of the free atom at 0 K, hartree.
        u_hartree: Internal energy of the free atom at 298.15 K, hartree.
        h_hartree: Enthalpy of the free atom at 298.15 K, hartree.
        g_hartree: Free energy of the free atom at 298.15 K, hartree.
    """

    number: int
    symbol: str
    mass_u: float
    u0_hartree: float
    u_hartree: float
    h_hartree: float
    g_hartree: float


ELEMENTS: tuple[Element, ...] = (
    Element(1, "H", 1.00782503190, -0.500273, -0.498857, -0.497912, -0.510927),
    Element(6, "C", 12.0, -37.846772, -37.845355, -37.844411, -37.861317),
    Element(7, "N", 14.00307400425, -54.583861, -54.582445, -54.581501, -54.598897),
    Element(8, "O", 15.99491461926, -75.064579, -75.063163, -75.062219, -75.079532),
    Element(9, "F", 18.99840316207, -99.718730, -99.717314, -99.716370, -99.733544),
)

NUMBERS: tuple[int, ...] = tuple(element.number for element in ELEMENTS)
NUMBER_OF: dict[str, int] = {element.symbol: element.number for element in ELEMENTS}
SYMBOL_OF: dict[int, str] = {element.number: element.symbol for element in ELEMENTS}


def by_number(attribute: str) -> npt.NDArray[np.float64]:
    """One attribute of every element, indexed by atomic number.

    Args:
        attribute: Name of a numeric attribute of `Element`.

    Returns:
        (MAX_NUMBER + 1,), zero where QM9 has no such element.
    """
    values = np.zeros(MAX_NUMBER + 1)
    for element in ELEMENTS:
        values[element.number] = getattr(element, attribute)
    return values
