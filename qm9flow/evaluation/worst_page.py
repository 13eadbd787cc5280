"""A page of the molecules with the largest errors, drawn as chemists draw them."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from rdkit import Chem, rdBase
from rdkit.Chem import rdCoordGen
from rdkit.Chem.Draw import rdMolDraw2D

from qm9flow.evaluation.assessment import Assessment
from qm9flow.evaluation.breakdown import Worst
from qm9flow.evaluation.drawing import new_figure
from qm9flow.evaluation.text_tables import number
from qm9flow.properties import get

WIDTH, HEIGHT = 420, 260
"""Of a depiction, pixels."""


def depict(smiles: str) -> npt.NDArray[np.float32] | None:
    """A molecule as a structural formula.

    Args:
        smiles: A SMILES.

    Returns:
        (HEIGHT, WIDTH, 3), 0 to 1; None if RDKit cannot read the SMILES.
    """
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    canvas = rdMolDraw2D.MolDraw2DCairo(WIDTH, HEIGHT)
    options: Any = canvas.drawOptions()
    options.fixedBondLength = 62
    options.bondLineWidth = 2
    options.minFontSize = 18
    rdCoordGen.AddCoords(molecule)  # RDKit's own layout puts atoms of bridged rings on each other
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    canvas.FinishDrawing()
    pixels: npt.NDArray[np.float32] = imread(io.BytesIO(canvas.GetDrawingText()))
    return pixels[..., :3]


def draw_worst(found: Assessment) -> Figure:
    """The molecules with the largest errors, one row a target, the worst at the left.

    Args:
        found: What is drawn.

    Returns:
        The figure.
    """
    rows = found.worst
    columns = max(len(worst) for worst in rows.values())
    figure = new_figure(
        max(8.0, 2.35 * columns + 0.9),
        2.15 * len(rows) + 0.6,
        f"Largest errors, predicted - true: {found.title}",
    )
    figure.set_layout_engine("constrained", h_pad=0.14)  # inches: a caption stays with its drawing
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (target, worst) in zip(grid, rows.items(), strict=True):
        item = get(target)
        mae = number(found.own.row(target).mae, 3)
        for axes in line:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(f"{target}\n{item.unit}\nMAE {mae}", fontsize=10)
        for axes, molecule in zip(line, worst, strict=False):
            _draw_one(axes, molecule, item.unit)
    return figure


def _draw_one(axes: Axes, molecule: Worst, unit: str) -> None:
    pixels = depict(molecule.smiles)
    if pixels is None:
        axes.imshow(np.ones((HEIGHT, WIDTH, 3), dtype=np.float32))
        axes.text(WIDTH / 2, HEIGHT / 2, molecule.smiles, ha="center", va="center", fontsize=8)
    else:
        axes.imshow(pixels)
    predicted, true = molecule.texts()
    axes.set_xlabel(
        f"predicted {predicted}, true {true}\nQM9 {molecule.qm9_index}, {molecule.atoms} atoms",
        fontsize=8,
    )
    sign = "+" if molecule.error > 0 else ""
    axes.set_title(f"error {sign}{number(molecule.error, 3)} {unit}", fontsize=9, pad=2)
