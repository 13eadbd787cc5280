"""Parsers give a valid molecule or a `MoleculeError` that says where and why."""

import json
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qm9flow import errors
from qm9flow.data.store import Dataset
from qm9flow.elements import SYMBOL_OF
from qm9flow.errors import InferenceError, MoleculeError
from qm9flow.molecules.arrays import from_arrays
from qm9flow.molecules.molecule import Conformers, Molecule, Structure
from qm9flow.molecules.pool import MoleculePool
from qm9flow.molecules.records import from_records
from qm9flow.molecules.sdf import from_sdf, split_sdf
from qm9flow.molecules.xyz import from_xyz

WATER = "3\nwater\nO 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692\n"

ETHANOL_BLOCK = """ethanol
     RDKit          3D

  9  8  0  0  0  0  0  0  0  0999 V2000
   -0.8883    0.1670   -0.0273 C   0  0
    0.4658   -0.5116   -0.0368 C   0  0
    1.4311    0.3229    0.5867 O   0  0
   -0.8487    1.1175   -0.5695 H   0  0
   -1.6471   -0.4704   -0.4896 H   0  0
   -1.1964    0.3978    0.9977 H   0  0
    0.7920   -0.7224   -1.0597 H   0  0
    0.4246   -1.4559    0.5138 H   0  0
    1.4671    1.1550    0.0848 H   0  0
  1  2  1  0
  2  3  1  0
  1  4  1  0
  1  5  1  0
  1  6  1  0
  2  7  1  0
  2  8  1  0
  3  9  1  0
M  END
"""


@pytest.fixture(scope="module")
def pool() -> MoleculePool:
    with MoleculePool(workers=1) as pool:
        yield pool


def as_xyz(molecule: Molecule, template: Callable[[str, float, float, float], str]) -> str:
    rows = zip(molecule.numbers, molecule.positions, strict=True)
    lines = [template(SYMBOL_OF[int(number)], *map(float, xyz)) for number, xyz in rows]
    return "\n".join([str(len(molecule)), "", *lines])


def test_xyz_of_qm9_molecules_comes_back_exactly(dataset: Dataset) -> None:
    for index in range(0, len(dataset), 4001):
        molecule = dataset.molecule(index)
        read = from_xyz(
            as_xyz(molecule, lambda s, x, y, z: f"{s} {x!r} {y!r} {z!r}"), geometry="approximate"
        )
        np.testing.assert_array_equal(read.numbers, molecule.numbers)
        np.testing.assert_array_equal(read.positions, molecule.positions)
        assert read.geometry == "approximate"


@pytest.mark.parametrize(
    "text",
    [
        WATER.replace("\n", "\r\n"),
        WATER.replace("\n", "\r"),
        WATER.replace(" ", "\t"),
        "\n\n" + WATER + "\n \n\n",
        WATER.replace("water", ""),
        WATER.replace("water\n", ""),
        WATER.split("\n", 2)[2],
        WATER.replace("O ", "8 ").replace("H ", "1 "),
        WATER.replace("O ", "o1 ").replace("H ", "h2 "),
        WATER.replace("0.7572", "7.572D-1").replace("0.4692", ".04692e+1"),
        WATER.replace("0.7572", "7.572*^-1"),
        WATER.replace("0.1173", "0.1173 -0.8 some charge"),
        WATER.replace("water", "gdb 3\t799.58") + "1671.46 3803.63 3907.69\nO O\nInChI=1S/H2O\n",
        WATER.replace("water", 'Properties=species:S:1:pos:R:3 charge=0 pbc="F F F"'),
    ],
)
def test_xyz_is_read_in_all_its_dialects(text: str) -> None:
    read, water = from_xyz(text), from_xyz(WATER)
    np.testing.assert_array_equal(read.numbers, [8, 1, 1])
    np.testing.assert_array_equal(read.positions, water.positions)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", errors.EmptyMoleculeError, ["empty"]),
        ("  \n\n", errors.EmptyMoleculeError, ["empty"]),
        ("0\n\n", errors.EmptyMoleculeError, ["line 1", "0"]),
        ("hello", errors.UnreadableError, ["line 1", "hello"]),
        ("\nhello", errors.UnreadableError, ["line 2", "hello"]),
        (WATER.replace("3", "4", 1), errors.UnreadableError, ["line 1", "4 atoms", "3 lines"]),
        (WATER + "H 5 5 5\n", errors.UnreadableError, ["line 6", "3 atoms"]),
        (WATER + WATER, errors.UnreadableError, ["line 6", "one molecule"]),
        (WATER.replace("0.1173", ""), errors.UnreadableError, ["line 3, atom 1"]),
        (WATER.replace("0.1173", "zero"), errors.NonFiniteError, ["line 3, atom 1", "zero"]),
        (WATER.replace("0.1173", "nan"), errors.NonFiniteError, ["line 3, atom 1", "nan"]),
        (WATER.replace("0.1173", "-Inf"), errors.NonFiniteError, ["line 3, atom 1", "finite"]),
        (WATER.replace("0.1173", "1e999"), errors.NonFiniteError, ["atom 1"]),
        (WATER.replace("0.1173", "1_0"), errors.NonFiniteError, ["line 3, atom 1"]),
        (WATER.replace("0.1173", "0,1173"), errors.NonFiniteError, ["0,1173"]),
        (WATER.replace("0.1173", "1e5"), errors.NonFiniteError, ["atom 1", "10,000"]),
        (WATER.replace("O 0", "S 0"), errors.UnsupportedElementError, ["line 3, atom 1", "'S'"]),
        (WATER.replace("O 0", "99 0"), errors.UnsupportedElementError, ["line 3, atom 1", "99"]),
        (WATER.replace("-0.7572", "0.7572"), errors.CoincidentAtomsError, ["atom 2", "atom 3"]),
        (WATER.replace("water", "charge=-1 "), errors.ChargedError, ["line 2", "-1"]),
        (WATER.replace("water", "charge='1' spin=1"), errors.ChargedError, ["line 2", "+1"]),
        (WATER.replace("water", "total_charge=-2"), errors.ChargedError, ["line 2", "-2"]),
        (WATER.replace("water", 'Net_Charge="+1.0"'), errors.ChargedError, ["line 2", "+1"]),
        (WATER.replace("water", "charge=0.99998"), errors.ChargedError, ["line 2", "+1"]),
        (WATER.replace("water", "charge=0.5"), errors.ChargedError, ["line 2", "+0.5"]),
        (WATER.replace("water", "charge=-1.5"), errors.ChargedError, ["line 2", "-1.5"]),
        (
            WATER.replace("water", "Properties=pos:R:3:id:I:1"),
            errors.UnreadableError,
            ["species"],
        ),
        (WATER.replace("water", "Properties=x:R:2:Z:I:1:pos:R:3"), errors.UnreadableError, []),
        ("999999999\n\n" + "H 0 0 0\n" * 5, errors.UnreadableError, ["999999999"]),
        ("257\n\n" + "H 0 0 0\n" * 257, errors.TooLargeError, ["257", "256"]),
        ("H 0 0 0\n" * 257, errors.TooLargeError, ["257", "256"]),
        ("x" * 1_000_001, errors.TooLargeError, ["1,000,000"]),
    ],
)
def test_xyz_errors_say_where_and_why(
    text: str, error: type[MoleculeError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        from_xyz(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_machine_at_its_limit_is_no_fault_of_a_molecule(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with MoleculePool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refuse)
            with pytest.raises(InferenceError, match="Resource temporarily unavailable"):
                from_records([{"smiles": "C"}], pool)
        with monkeypatch.context() as patch:
            patch.setattr("qm9flow.molecules.pool._BOOT", "raise ImportError('rdkit')")
            with pytest.raises(InferenceError, match="end before they take a molecule"):
                from_records([{"smiles": "C"}], pool)
        (found,) = from_records([{"smiles": "C"}], pool)
    assert isinstance(found, Conformers)


def test_an_sdf_of_several_molecules_is_split() -> None:
    blocks = split_sdf(ETHANOL_BLOCK + "> <x>\n1\n\n$$$$\r\n" + ETHANOL_BLOCK)
    assert len(blocks) == 2
    assert [from_sdf(block).name for block in blocks] == ["ethanol", "ethanol"]


def test_mol_block_gives_its_own_coordinates() -> None:
    molecule = from_sdf(ETHANOL_BLOCK + "$$$$\n")
    assert molecule.numbers.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    assert molecule.positions[2].tolist() == [1.4311, 0.3229, 0.5867]
    assert (molecule.geometry, molecule.name) == ("approximate", "ethanol")
    assert from_sdf(ETHANOL_BLOCK, geometry="dft").geometry == "dft"


def without_hydrogens(block: str) -> str:
    lines = block.split("\n")
    return "\n".join([*lines[:3], "  3  2" + lines[3][6:], *lines[4:7], *lines[13:15], "M  END"])


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", errors.EmptyMoleculeError, ["empty"]),
        ("junk", errors.UnreadableError, ["not a mol block"]),
        (ETHANOL_BLOCK[:300], errors.UnreadableError, ["not a mol block"]),
        (without_hydrogens(ETHANOL_BLOCK), errors.MissingHydrogensError, ["6 hydrogens", "atom 1"]),
        (ETHANOL_BLOCK.replace(" O ", " S "), errors.UnsupportedElementError, ["atom 3 (S)"]),
        (
            ETHANOL_BLOCK.replace("M  END", "M  CHG  1   3   1\nM  END"),
            errors.ChargedError,
            ["+1", "atom 3 (O)"],
        ),
        (
            ETHANOL_BLOCK.replace("M  END", "M  ISO  1   4   2\nM  END"),
            errors.UnsupportedElementError,
            ["atom 4 (H)", "mass 2"],
        ),
        (ETHANOL_BLOCK + "$$$$\n" + ETHANOL_BLOCK, errors.UnreadableError, ["2 molecules"]),
    ],
)
def test_mol_block_errors_say_why(text: str, error: type[MoleculeError], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        from_sdf(text)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "positions", "error", "words"),
    [
        ([], [], errors.EmptyMoleculeError, ["no atoms"]),
        (None, [], errors.UnreadableError, ["numbers must be a list"]),
        ([1], [[0, 0]], errors.UnreadableError, ["atom 1 (H)", "[x, y, z]"]),
        ([1], [[0, 0, 0], [1, 1, 1]], errors.UnreadableError, ["1 atoms", "2"]),
        ([1, 16], [[0, 0, 0], [1, 1, 1]], errors.UnsupportedElementError, ["atom 2", "16"]),
        ([True], [[0, 0, 0]], errors.UnsupportedElementError, ["True"]),
        (["C"], [[0, 0, 0]], errors.UnsupportedElementError, ["'C'", "6"]),
        ([6.0], [[0, 0, 0]], errors.UnsupportedElementError, ["6.0"]),
        ([10**5000], [[0, 0, 0]], errors.UnsupportedElementError, ["huge"]),
        ([1], [[0, 0, float("nan")]], errors.NonFiniteError, ["atom 1 (H)", "nan"]),
        ([1], [[0, 0, "0"]], errors.NonFiniteError, ["atom 1 (H)"]),
        ([1], [[0, 0, None]], errors.NonFiniteError, ["atom 1 (H)"]),
        ([1], [[0, 0, True]], errors.NonFiniteError, ["atom 1 (H)"]),
        ([1], [[0, 0, 10**400]], errors.NonFiniteError, ["atom 1 (H)", "large"]),
        ([1] * 257, [[0, 0, 0]] * 257, errors.TooLargeError, ["257"]),
    ],
)
def test_array_errors_say_which_atom(
    numbers: object, positions: object, error: type[MoleculeError], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        from_arrays(numbers, positions)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_arrays_of_numpy_are_read_too() -> None:
    molecule = from_arrays(np.array([8, 1]), np.eye(3, dtype=np.float32)[:2], "approximate")
    assert molecule.numbers.tolist() == [8, 1]
    assert molecule.positions.dtype == np.float64


def test_records_are_judged_one_by_one_and_keep_their_order(pool: MoleculePool) -> None:
    records = [
        {"smiles": "CCO"},
        {"xyz": WATER, "geometry": "approximate"},
        {"smiles": "C1CC"},
        "CCO",
        {"smiles": "C", "xyz": WATER},
        {"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]},
        {"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]], "geometry": "smiles"},
        {"sdf": ETHANOL_BLOCK},
        {"smiles": "C", "geometry": "dft"},
        {"xyz": WATER, "geometry": ["dft"]},
        {},
        {"smiles": {"C": 1}},
        None,
    ]
    results = from_records(records, pool)
    codes = [item.code if isinstance(item, MoleculeError) else len(item) for item in results]
    assert codes == [
        9, 3, "invalid_smiles", "invalid_record", "invalid_record", 2, "invalid_record", 9,
        "invalid_record", "invalid_record", "invalid_record", "invalid_smiles", "invalid_record",
    ]  # fmt: skip
    assert [item.geometry for item in results if isinstance(item, Molecule)] == [
        "approximate", "dft", "approximate",
    ]  # fmt: skip


def sound(molecule: Structure) -> bool:
    if isinstance(molecule, Conformers):
        return len(molecule.energies) > 0 and all(map(sound, molecule.molecules))
    return (
        len(molecule) > 0
        and molecule.positions.shape == (len(molecule), 3)
        and bool(np.isfinite(molecule.positions).all())
    )


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
element_like = st.sampled_from(["H", "C", "n", "6", "O1", "Cl", "Xx", "", "9"])
number_like = st.one_of(
    st.floats(-20, 20).map(str), st.sampled_from(["nan", "1e400", "1D0", "-.5", "x", "1*^2"])
)
xyz_line = st.tuples(element_like, number_like, number_like, number_like).map(" ".join)
xyz_like = st.one_of(
    st.text(max_size=200),
    st.tuples(
        st.sampled_from(["1", "2", "3", "", "0", "-1"]),
        st.text(max_size=10),
        st.lists(xyz_line, max_size=4).map("\n".join),
    ).map("\n".join),
)


@settings(max_examples=400, deadline=None)
@given(xyz_like)
def test_no_xyz_text_breaks_the_parser(text: str) -> None:
    try:
        molecule = from_xyz(text)
    except MoleculeError as error:
        result: object = str(error)
    else:
        result = molecule
    assert result.isascii() if isinstance(result, str) else sound(result)


arrays_like = st.fixed_dictionaries(
    {
        "numbers": st.lists(st.sampled_from([1, 6, 7, 8, 9, 0, 16, 1.0, None, True]), max_size=4),
        "positions": st.lists(
            st.lists(st.floats() | st.floats(-9, 9) | st.integers(), min_size=2, max_size=4),
            max_size=4,
        ),
    }
)
record_like = st.one_of(
    json_like,
    st.fixed_dictionaries({"smiles": st.text("CNOFclno[]()=#+-@1234567890%./\\H*", max_size=12)}),
    st.fixed_dictionaries({"smiles": st.text(max_size=12)}),
    st.fixed_dictionaries({"xyz": xyz_like}, optional={"geometry": json_like}),
    st.fixed_dictionaries({"sdf": st.text(max_size=60)}),
    arrays_like,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(record_like, max_size=6))
def test_no_record_breaks_the_parser(pool: MoleculePool, records: list[object]) -> None:
    results = from_records(records, pool)
    assert len(results) == len(records)
    for result in results:
        if isinstance(result, MoleculeError):
            assert json.dumps(str(result))
            assert result.code != "internal"
        else:
            assert sound(result)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, len(ETHANOL_BLOCK) - 1),
    st.sampled_from(["", " ", "9", "-", "\n", "X", "M  CHG", "\x00", "é", "1e9", "   nan    "]),
    st.integers(1, 12),
)
def test_no_damaged_mol_block_breaks_the_parser(
    pool: MoleculePool, start: int, inserted: str, removed: int
) -> None:
    damaged = ETHANOL_BLOCK[:start] + inserted + ETHANOL_BLOCK[start + removed :]
    result = from_records([{"sdf": damaged}], pool)[0]
    assert isinstance(result, MoleculeError) or sound(result)
