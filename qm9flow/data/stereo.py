"""The handedness that QM9's SMILES leave out, read from its geometries."""

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from qm9flow.data.store import Dataset
from qm9flow.molecules.molecule import Molecule

LONGEST_BOND_ANGSTROM = 1.75
"""Longer, the SMILES' atoms are not in the order of the geometry's; QM9's longest bond has 1.7."""

COVALENT_FACTOR = 1.2
"""Atoms nearer to each other than this, times the sum of their covalent radii, are bonded."""


def isomeric_smiles(dataset: Dataset, i: int) -> str:
    """A molecule's SMILES with the centres and double bonds of its geometry.

    The tables' SMILES state none, so that a fused ring of four atoms may be any of its
    diastereomers, which differ by tenths of an eV.

    Args:
        dataset: QM9.
        i: Its place, from 0.

    Returns:
        The canonical SMILES; that of the tables where its bonds are not those of the geometry
        (21 molecules).
    """
    with rdBase.BlockLogs():
        graph = graph_with_geometry(dataset, i)
        if graph is None:
            return dataset.smiles(i)
        Chem.AssignStereochemistryFrom3D(graph)
        return str(Chem.MolToSmiles(Chem.RemoveHs(graph)))


def graph_with_geometry(dataset: Dataset, i: int) -> Chem.Mol | None:
    """A molecule with the bonds of its SMILES and the positions of its geometry.

    Args:
        dataset: QM9.
        i: Its place, from 0.

    Returns:
        With explicit hydrogens, its atoms in the geometry's order, and one conformer; None where
        the SMILES has other bonds than the geometry.
    """
    graph = Chem.MolFromSmiles(dataset.smiles(i))
    if graph is None:
        return None
    graph = Chem.AddHs(graph)
    molecule = dataset.molecule(i)
    placed = graph if _is_in_order(graph, molecule) else _in_order(graph, molecule)
    if placed is not None:
        placed.AddConformer(_conformer(molecule))
    return placed


def _is_in_order(graph: Chem.Mol, molecule: Molecule) -> bool:
    if [atom.GetAtomicNum() for atom in graph.GetAtoms()] != molecule.numbers.tolist():
        return False
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in graph.GetBonds()]
    first, second = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    lengths = np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=-1)
    return bool((lengths < LONGEST_BOND_ANGSTROM).all())


def _in_order(graph: Chem.Mol, molecule: Molecule) -> Chem.Mol | None:
    """The graph, its atoms laid onto those of the geometry that have the same neighbours.

    QM9's SMILES with hydrogens in brackets, as in [NH3+], do not name them in the geometry's order.
    """
    bonded = _atoms(molecule.numbers)
    bonded.AddConformer(_conformer(molecule))
    rdDetermineBonds.DetermineConnectivity(bonded, covFactor=COVALENT_FACTOR, useVdw=False)
    if bonded.GetNumBonds() != graph.GetNumBonds():
        return None
    places = bonded.GetSubstructMatch(_skeleton(graph))
    return Chem.RenumberAtoms(graph, np.argsort(places).tolist()) if places else None


def _skeleton(graph: Chem.Mol) -> Chem.Mol:
    """Elements and which are bonded, nothing else."""
    bare = _atoms(np.array([atom.GetAtomicNum() for atom in graph.GetAtoms()]))
    for bond in graph.GetBonds():
        bare.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return bare


def _atoms(numbers: npt.NDArray[np.int64]) -> Chem.RWMol:
    """Elements without bonds."""
    atoms = Chem.RWMol()
    for number in numbers.tolist():
        atoms.AddAtom(Chem.Atom(number))
    return atoms


def _conformer(molecule: Molecule) -> Chem.Conformer:
    conformer = Chem.Conformer(len(molecule))
    conformer.SetPositions(molecule.positions)
    return conformer
