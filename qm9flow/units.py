"""Physical constants and the conversions made from them.

Source: CODATA 2018 recommended values (E. Tiesinga, P. J. Mohr, D. B. Newell, B. N. Taylor,
Rev. Mod. Phys. 93, 025010 (2021)).
"""

from math import pi

HARTREE_EV = 27.211386245988
BOHR_ANGSTROM = 0.529177210903
BOLTZMANN_EV_PER_K = 8.617333262145e-5
PLANCK_J_S = 6.62607015e-34
ATOMIC_MASS_KG = 1.66053906660e-27

ROOM_TEMPERATURE_K = 298.15
"""Temperature of QM9's U, H, G and Cv (R. Ramakrishnan et al., Sci. Data 1, 140022 (2014))."""

RT_EV = BOLTZMANN_EV_PER_K * ROOM_TEMPERATURE_K
"""H - U of an ideal gas at 298.15 K, in eV a molecule."""

ROTATIONAL_GHZ_U_A2 = PLANCK_J_S / (8 * pi**2 * ATOMIC_MASS_KG * 1e-20) * 1e-9
"""h / (8 pi^2): a rotational constant in GHz times its moment of inertia in u angstrom^2."""
