"""Conformers of a molecular graph by distance geometry and a force field, in this process.

Sources: ETKDGv3, S. Wang, J. Witek, G. A. Landrum, S. Riniker, J. Chem. Inf. Model. 60, 2044
(2020); MMFF94, T. A. Halgren, J. Comput. Chem. 17, 490 (1996); UFF, A. K. Rappe et al., J. Am.
Chem. Soc. 114, 10024 (1992).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, DistanceGeometry
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers
from rdkit.Geometry import Point3D

from qm9flow.errors import ConformerError

SEED = 61453
"""Of the distance geometry: the same SMILES gives the same positions, always."""

FORCE_FIELD_STEPS = 2000
"""Most steps of the force field; QM9's molecules need some tens to hundreds."""

EMBED_ATTEMPTS = 20
"""Starts of each distance geometry. Of 1,200 molecules of QM9, 1,174 need no more, one needs up to
RDKit's own limit of ten an atom, and for the rest all of those would be in vain, up to 0.7 s long.
"""

FORCE_TOLERANCE = 0.0135
"""Where the distance geometry's own minimisation ends; RDKit's default is 0.001. The force field
comes afterwards anyway: of 250 molecules of QM9 with their handedness, 10 instead of 27 do without
the second way below, in two thirds of the time.
"""

BARE_ATTEMPTS = 8
"""Starts of the last resort, bare distance geometry; the lowest energy is kept."""


def embed(graph: Chem.Mol, count: int) -> npt.NDArray[np.float64]:
    """Give a graph conformers, by the first of three ways that works, and relax them.

    ETKDGv3's torsion terms and the check of ring centres refuse about one in a hundred of QM9's
    cages; distance geometry without them finds most of those, and bare distance geometry, cleaned
    up by the force field, the rest. The last knows no handedness, so it is left out where the
    graph states one.

    Args:
        graph: With explicit hydrogens and without conformers; it gets them.
        count: Conformers at most. Fewer come where starts fail; the first ones do not depend on
            how many are asked for.

    Returns:
        (k,), energies of the conformers in kcal/mol, in MMFF94 or, where that knows an atom not,
        in UFF: to be compared with each other only.

    Raises:
        ConformerError: No geometry was found.
    """
    etkdg: Any = rdDistGeom.ETKDGv3()
    plain: Any = rdDistGeom.EmbedParameters()
    for parameters in (etkdg, plain):
        parameters.randomSeed = SEED
        parameters.maxIterations = EMBED_ATTEMPTS
        parameters.optimizerForceTol = FORCE_TOLERANCE
        if found := list(rdDistGeom.EmbedMultipleConfs(graph, count, parameters)):
            return np.array([_minimise(graph, conformer) for conformer in found])
    energy = None if _states_handedness(graph) else _embed_bare(graph)
    if energy is None:
        raise ConformerError(
            "no geometry found for this SMILES: give a geometry (xyz, or numbers and positions)"
        )
    return np.array([energy])


def _states_handedness(graph: Chem.Mol) -> bool:
    return any(
        atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED for atom in graph.GetAtoms()
    ) or any(bond.GetStereo() > Chem.BondStereo.STEREOANY for bond in graph.GetBonds())


def _embed_bare(graph: Chem.Mol) -> float | None:
    """Distance geometry on the bounds alone, then the force field; keeps the lowest energy."""
    bounds = rdDistGeom.GetMoleculeBoundsMatrix(graph)
    best: tuple[float, Chem.Conformer] | None = None
    for attempt in range(BARE_ATTEMPTS):
        trial = Chem.Mol(graph)
        try:
            points = DistanceGeometry.EmbedBoundsMatrix(bounds, randomSeed=SEED + attempt)
        except ValueError:  # this start did not converge
            continue
        conformer = Chem.Conformer(graph.GetNumAtoms())
        for index, point in enumerate(points):
            conformer.SetAtomPosition(index, Point3D(*point))
        trial.AddConformer(conformer)
        energy = _minimise(trial, -1)
        if best is None or energy < best[0]:
            best = energy, Chem.Conformer(trial.GetConformer())
    if best is None:
        return None
    graph.AddConformer(best[1])
    return best[0]


def _minimise(graph: Chem.Mol, conformer: int) -> float:
    """Relax in MMFF94, or in UFF where MMFF94 knows an atom not; energy in kcal/mol."""
    if graph.GetNumAtoms() == 1:
        return 0.0
    if rdForceFieldHelpers.MMFFHasAllMoleculeParams(graph):
        terms = rdForceFieldHelpers.MMFFGetMoleculeProperties(graph)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(graph, terms, confId=conformer)
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(graph):
        field = rdForceFieldHelpers.UFFGetMoleculeForceField(graph, confId=conformer)
    else:
        raise ConformerError(
            "neither MMFF94 nor UFF knows the bonding of this molecule: give a geometry (xyz, or "
            "numbers and positions)"
        )
    field.Initialize()
    field.Minimize(maxIts=FORCE_FIELD_STEPS)
    return float(field.CalcEnergy())
