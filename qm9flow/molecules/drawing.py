"""Drawings of molecules in two dimensions, by RDKit, in this process.

As with conformers, nothing in a service calls this module: `qm9flow.molecules.pool` runs it in
processes that can be killed.
"""

from collections.abc import Callable
from typing import Any

from rdkit import Chem
from rdkit.Chem import rdDepictor, rdDetermineBonds
from rdkit.Chem.Draw import rdMolDraw2D

from qm9flow.errors import DrawingError, EmptyMoleculeError, UnreadableError
from qm9flow.molecules.conformers import parse_mol_block, parse_smiles, refuse_size

PIXELS_AN_ANGSTROM = 32
"""Of the drawing, which is as large as the molecule: a bond takes 48 of them."""


def draw_smiles(text: str, max_atoms: int) -> str:
    """Draw what a SMILES describes, of whatever elements and charge.

    Args:
        text: A SMILES, no name behind it.
        max_atoms: Most atoms allowed, hydrogens that the text leaves out not counted.

    Returns:
        An SVG document with a transparent background, its letters drawn as paths.

    Raises:
        MoleculeError: It is no SMILES, or too large.
    """
    return _draw(parse_smiles(text), max_atoms)


def draw_mol_block(text: str, max_atoms: int) -> str:
    """Draw the molecule of a mol block with its own bonds.

    Args:
        text: One mol block.
        max_atoms: Most atoms allowed.

    Returns:
        An SVG document, as from `draw_smiles`.

    Raises:
        MoleculeError: It cannot be read, breaks valence rules, or is too large.
    """
    graph = parse_mol_block(text)
    if Chem.SanitizeMol(graph, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        raise DrawingError("the bonds of the mol block break valence rules: it cannot be drawn")
    # Read from a geometry, a methyl group has a handedness, too: its hydrogens have numbers.
    Chem.AssignStereochemistry(graph, cleanIt=True, force=True)
    return _draw(graph, max_atoms)


def draw_xyz(text: str, max_atoms: int) -> str:
    """Draw a geometry; RDKit perceives its bonds, for a molecule without net charge.

    Args:
        text: XYZ, as `xyz.to_xyz` writes it.
        max_atoms: Most atoms allowed.

    Returns:
        An SVG document, as from `draw_smiles`.

    Raises:
        MoleculeError: No bonds fit the geometry, or it is too large.
    """
    graph = Chem.MolFromXYZBlock(text)
    if graph is None:
        raise UnreadableError("not an XYZ text")
    refuse_size(graph, max_atoms)
    for atom in graph.GetAtoms():
        atom.SetNoImplicit(True)  # every hydrogen is there: a bare carbon atom is no methane
    try:
        rdDetermineBonds.DetermineBonds(graph, charge=0)
        Chem.SanitizeMol(graph)
    except (ValueError, RuntimeError) as error:
        raise DrawingError(
            "no bonds fit this geometry, so it cannot be drawn: give a SMILES or a mol block"
        ) from error
    return _draw(graph, max_atoms)


def _draw(graph: Chem.Mol, max_atoms: int) -> str:
    if graph.GetNumAtoms() == 0:
        raise EmptyMoleculeError("the molecule has no atoms: give at least one")
    refuse_size(graph, max_atoms)
    graph = Chem.RemoveHs(graph)
    rdDepictor.Compute2DCoords(graph, useRingTemplates=True)
    canvas: Any = rdMolDraw2D.MolDraw2DSVG(-1, -1)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.scalingFactor = PIXELS_AN_ANGSTROM
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, graph)
    canvas.FinishDrawing()
    svg: str = canvas.GetDrawingText()
    return svg


DRAW: dict[str, Callable[[str, int], str]] = {
    "smiles": draw_smiles,
    "sdf": draw_mol_block,
    "xyz": draw_xyz,
}
"""How to draw each form of a molecule."""
