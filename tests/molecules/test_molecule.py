"""What is refused, and that the message names the atom."""

import numpy as np
import pytest

from qm9flow.data.store import Dataset
from qm9flow.errors import (
    CoincidentAtomsError,
    EmptyMoleculeError,
    MoleculeError,
    NonFiniteError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)
from qm9flow.molecules.molecule import Molecule, validate

CO2 = np.array([[0.0, 0.0, 0.0], [1.16, 0.0, 0.0], [-1.16, 0.0, 0.0]])


def co2(numbers: tuple[int, ...] = (6, 8, 8), **changed: float) -> Molecule:
    positions = CO2.copy()
    for place, value in changed.items():
        positions[int(place[1]), 0] = value
    return Molecule(np.array(numbers), positions)


@pytest.mark.parametrize(
    ("molecule", "error", "words"),
    [
        (Molecule(np.zeros(0, int), np.zeros((0, 3))), EmptyMoleculeError, "no atoms"),
        (Molecule(np.array([6]), CO2), UnreadableError, r"\(1, 3\), got \(3, 3\)"),
        (Molecule(np.array([[6, 8, 8]]), CO2), EmptyMoleculeError, "no atoms"),
        (co2((6, 16, 8)), UnsupportedElementError, "atom 2 has the atomic number 16"),
        (co2((6, 8, 0)), UnsupportedElementError, "atom 3"),
        (co2((6, 8, -8)), UnsupportedElementError, "atom 3"),
        (co2(x2=np.nan), NonFiniteError, r"atom 3 \(O\)"),
        (co2(x1=np.inf), NonFiniteError, r"atom 2 \(O\)"),
        (co2(x1=1e300), NonFiniteError, "beyond 10,000 angstrom"),
        (co2(x1=0.1), CoincidentAtomsError, r"atom 1 \(C\) and atom 2 \(O\) are 0.1 angstrom"),
    ],
)
def test_bad_molecules_are_refused(
    molecule: Molecule, error: type[MoleculeError], words: str
) -> None:
    with pytest.raises(error, match=words):
        validate(molecule, max_atoms=100)


def test_too_large_names_the_limit() -> None:
    with pytest.raises(TooLargeError, match="3 atoms; the limit is 2"):
        validate(co2(), max_atoms=2)


def test_real_molecules_pass(dataset: Dataset) -> None:
    for i in range(0, len(dataset), 1000):
        molecule = dataset.molecule(i)
        validate(molecule, max_atoms=len(molecule))
        with pytest.raises(TooLargeError):
            validate(molecule, max_atoms=len(molecule) - 1)


def test_arrays_get_their_types() -> None:
    molecule = Molecule([6, 8], [[0, 0, 0], [1, 0, 0]])  # type: ignore[arg-type]
    assert molecule.numbers.dtype == np.int64
    assert molecule.positions.dtype == np.float64
    assert len(molecule) == 2
