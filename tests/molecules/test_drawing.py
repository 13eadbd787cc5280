"""Drawings: what RDKit can read is drawn, what it cannot has its error; processes may die."""

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from qm9flow.data.store import Dataset
from qm9flow.errors import DrawingError, MoleculeError
from qm9flow.molecules.pool import MAX_ATOMS, DrawingJob, MoleculePool
from qm9flow.molecules.records import read_drawings

WATER = "3\nwater\nO 0.0 0.0 0.1173\nH 0.0 0.7572 -0.4692\nH 0.0 -0.7572 -0.4692"


@pytest.fixture(scope="module")
def pool() -> Iterator[MoleculePool]:
    with MoleculePool(1) as pool:
        yield pool


def drawings(
    pool: MoleculePool, records: Sequence[object], budget_s: float | None = None
) -> list[str | MoleculeError]:
    read = read_drawings(records)
    jobs = [item for item in read if isinstance(item, DrawingJob)]
    drawn = iter(pool.draw(jobs, budget_s=budget_s))
    return [next(drawn) if isinstance(item, DrawingJob) else item for item in read]


def draw(pool: MoleculePool, record: object) -> str:
    """The drawing of one entry, which must be a document of its own."""
    (drawn,) = drawings(pool, [record])
    assert isinstance(drawn, str), drawn
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    return drawn


def letters(svg: str) -> set[str]:
    """Classes of the atoms that a drawing writes out: RDKit draws a letter as a path."""
    return set(re.findall(r"class='(atom-\d+)'", svg))


@pytest.mark.parametrize(
    "smiles",
    ["CCO", "C", "[H][H]", "C[C@H](N)C(=O)O", "C[NH3+]", "CCl", "[Na+].[Cl-]", "C[N+](=O)[O-]"],
)
def test_a_smiles_is_drawn_whatever_its_elements_and_charge(
    pool: MoleculePool, smiles: str
) -> None:
    assert "path" in draw(pool, {"smiles": smiles})


def test_bonds_of_geometries_are_perceived(pool: MoleculePool, dataset: Dataset) -> None:
    records = []
    for index in range(0, 130_000, 6500):
        molecule = dataset.molecule(index)
        records.append(
            {"numbers": molecule.numbers.tolist(), "positions": molecule.positions.tolist()}
        )
    drawn = drawings(pool, records)
    assert len(drawn) == len(records)
    assert sum(isinstance(item, str) for item in drawn) >= len(records) - 1


def test_a_geometry_is_drawn_without_its_hydrogens(pool: MoleculePool) -> None:
    assert letters(draw(pool, {"xyz": WATER})) == {"atom-0"}


def test_a_bare_atom_is_no_hydride(pool: MoleculePool) -> None:
    bare = draw(pool, {"numbers": [6], "positions": [[0, 0, 0]]})
    methane = draw(pool, {"smiles": "C"})
    assert (bare.count("fill='#000000'"), methane.count("fill='#000000'")) == (1, 3)  # C; C, H, 4


def test_a_mol_block_keeps_its_own_bonds(pool: MoleculePool) -> None:
    block = (
        "\n  drawn\n\n  2  1  0  0  0  0            999 V2000\n"
        "    0.0000    0.0000    0.0000 C   0  0\n    1.2000    0.0000    0.0000 O   0  0\n"
        "  1  2  2  0\nM  END\n"
    )
    formaldehyde, methanol = draw(pool, {"sdf": block}), draw(pool, {"smiles": "CO"})
    assert formaldehyde.count("bond-0") > methanol.count("bond-0")  # two lines against one


@pytest.mark.parametrize(("smiles", "is_handed"), [("CC(=O)NCC", False), ("C[C@@H](O)CC", True)])
def test_a_mol_block_has_wedges_at_stereocentres_alone(
    pool: MoleculePool, smiles: str, *, is_handed: bool
) -> None:
    graph = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(graph, randomSeed=1)
    drawn = draw(pool, {"sdf": Chem.MolToMolBlock(graph)})
    wedges = re.findall(r"<path class='bond-\d+[^>]*(?:fill:#|stroke-width:1\.0px)", drawn)
    assert bool(wedges) == is_handed


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        ({"smiles": "C1CC"}, "invalid_smiles", "unclosed"),
        ({"smiles": "C" * (MAX_ATOMS + 1)}, "too_large", str(MAX_ATOMS)),
        ({"sdf": "no\nmol\nblock\n"}, "unreadable", "mol block"),
        ({"numbers": [6, 6], "positions": [[0, 0, 0], [0, 0, 9]]}, "drawing_failed", "SMILES"),
        ({"xyz": WATER.replace("O", "S")}, "unsupported_element", "line 3"),
        ({}, "invalid_record", "smiles"),
        (None, "invalid_record", "object"),
    ],
)
def test_what_cannot_be_drawn_has_its_error_and_spoils_no_other(
    pool: MoleculePool, record: object, code: str, words: str
) -> None:
    first, bad, last = drawings(pool, [{"smiles": "C"}, record, {"smiles": "C"}])
    assert isinstance(first, str)
    assert first == last
    assert isinstance(bad, MoleculeError)
    assert bad.code == code
    assert words in str(bad)


def test_a_drawing_that_takes_too_long_is_given_up() -> None:
    with MoleculePool(1, timeout_s=0.001) as pool:
        (late,) = drawings(pool, [{"smiles": "C1CC2CC3CC1C23" + "C(C)(C)" * 80}])
    assert isinstance(late, MoleculeError)
    assert late.code == "timeout"


def test_no_time_no_drawing(pool: MoleculePool) -> None:
    (late,) = drawings(pool, [{"smiles": "CCO"}], budget_s=0)
    assert isinstance(late, MoleculeError)
    assert late.code == "timeout"
    assert DrawingError.code == "drawing_failed"
