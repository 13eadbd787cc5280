"""The quick look never passes what the closer one refuses or doubts."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.data.store import Dataset
from qm9flow.errors import MoleculeError
from qm9flow.inference.domain import doubts
from qm9flow.inference.screen import flawless, ordinary
from qm9flow.molecules.molecule import Molecule, validate

NUMBER = st.sampled_from([1, 6, 7, 8, 9, 1, 1, 0, 2, 17, -3, 300])
COORDINATE = st.one_of(
    st.floats(-4, 4), st.floats(-2e4, 2e4), st.sampled_from([np.nan, np.inf, 1e300, 0.0])
)


@st.composite
def molecules(draw: st.DrawFn) -> Molecule:
    size = draw(st.integers(0, 32))
    numbers = draw(st.lists(NUMBER, min_size=size, max_size=size))
    rows = draw(
        st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), min_size=size, max_size=size)
    )
    positions = np.array(rows, dtype=np.float64).reshape(size, 3)
    if draw(st.booleans()):  # most would be refused otherwise
        numbers = [abs(n) % 9 + 1 if n in (0, 2, 17, -3, 300) else n for n in numbers]
        numbers = [n if n in (1, 6, 7, 8, 9) else 6 for n in numbers]
        positions = np.arange(size)[:, None] * [draw(st.floats(0.1, 5.0)), 0.3, 0.1]
    return Molecule(np.array(numbers, dtype=np.int64), positions.astype(np.float64))


def is_valid(molecule: Molecule, max_atoms: int) -> bool:
    try:
        validate(molecule, max_atoms)
    except MoleculeError:
        return False
    return True


@settings(max_examples=100, deadline=None)
@given(st.lists(molecules(), max_size=6), st.integers(1, 40))
def test_what_passes_is_valid(some: Sequence[Molecule], max_atoms: int) -> None:
    for molecule, is_sound in zip(some, flawless(some, max_atoms), strict=True):
        assert not is_sound or is_valid(molecule, max_atoms)


@settings(max_examples=100, deadline=None)
@given(st.lists(molecules(), max_size=6), st.sampled_from([None, 1.5, 5.0]))
def test_what_is_ordinary_is_not_doubted(some: Sequence[Molecule], cutoff: float | None) -> None:
    valid = [molecule for molecule in some if is_valid(molecule, 256)]
    for molecule, is_usual in zip(valid, ordinary(valid, cutoff), strict=True):
        assert not is_usual or doubts(molecule, cutoff) == ()


def test_arrays_that_do_not_belong_together_are_looked_at_singly() -> None:
    bad = [
        Molecule(np.array([6, 1]), np.zeros((3, 3))),
        Molecule(np.array([[6, 1]]), np.zeros((2, 3))),
        Molecule(np.array([], dtype=np.int64), np.zeros((0, 3))),
    ]
    good = Molecule(np.array([8, 1, 1]), np.eye(3))
    assert flawless([*bad, good], 10).tolist() == [False, False, False, True]


def test_nearly_all_of_qm9_passes_at_once(dataset: Dataset) -> None:
    some = [dataset.molecule(i) for i in range(0, len(dataset), 200)]
    assert flawless(some, 256).all()
    is_usual = ordinary(some, 5.0)
    assert is_usual.mean() > 0.99
    assert all(doubts(some[i], 5.0) == () for i in np.flatnonzero(is_usual))


def test_many_large_molecules_are_looked_at_in_parts() -> None:
    row = np.arange(256)[:, None] * np.array([1.5, 0.0, 0.0])
    large = Molecule(np.full(256, 6), row)
    assert flawless([large] * 40, 256).all()
    assert not ordinary([large] * 3, 5.0).any()
