"""The handedness that QM9's SMILES leave out, read from its geometries."""

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Geometry import Point3D

from qm9flow.data.store import Dataset
from qm9flow.molecules.molecule import Molecule

LONGEST_BOND_ANGSTROM = 1.75
"""Longer, the SMILES' atoms are not in the order of the geometry's; QM9's longest bond has 1.7."""


def isomeric_smiles(dataset: Dataset, i: int) -> str:
    """A molecule's SMILES with the centres and double bonds of its geometry.

    The tables' SMILES state none, so that a fused ring of four atoms may be any of its
    diastereomers, which differ by tenths of an eV.

    Args:
        dataset: QM9.
        i: Its place, from 0.

    Returns:
        The canonical SMILES; that of the tables where its atoms do not stand in the geometry's
        order (7 molecules in 1,000).
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
        With explicit hydrogens and one conformer; None where the atoms of the SMILES do not stand
        in the geometry's order.
    """
    graph = Chem.MolFromSmiles(dataset.smiles(i))
    if graph is None:
        return None
    graph = Chem.AddHs(graph)
    molecule = dataset.molecule(i)
    if not _is_in_order(graph, molecule):
        return None
    conformer = Chem.Conformer(len(molecule))
    for atom, place in enumerate(molecule.positions):
        conformer.SetAtomPosition(atom, Point3D(*map(float, place)))
    graph.AddConformer(conformer)
    return graph


def _is_in_order(graph: Chem.Mol, molecule: Molecule) -> bool:
    if [atom.GetAtomicNum() for atom in graph.GetAtoms()] != molecule.numbers.tolist():
        return False
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in graph.GetBonds()]
    first, second = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    lengths = np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=-1)
    return bool((lengths < LONGEST_BOND_ANGSTROM).all())
