"""From a SMILES or a mol block to atoms in space, by RDKit, in this process.

RDKit can take for ever, or crash, on odd input. So nothing in a service calls this module:
`qm9flow.molecules.pool` runs it in processes that can be killed.
"""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase

from qm9flow.elements import ELEMENTS, NUMBER_OF
from qm9flow.errors import (
    ChargedError,
    ConformerError,
    EmptyMoleculeError,
    FlatMoleculeError,
    InvalidSmilesError,
    MissingHydrogensError,
    MoleculeError,
    TooLargeError,
    UnreadableError,
    UnsupportedElementError,
)
from qm9flow.molecules.embed import SAME_MINIMUM_KCAL, embed, minimise
from qm9flow.molecules.molecule import Conformers, Geometry, Molecule, validate

_ISOTOPES = {element.number: round(element.mass_u) for element in ELEMENTS}
_SYMBOLS = ", ".join(NUMBER_OF)


def smiles_to_conformers(text: str, max_atoms: int, count: int) -> Conformers:
    """Geometries from a SMILES: explicit hydrogens, ETKDGv3, MMFF94.

    Centres without a stated handedness get one of the two, in each conformer anew. However the
    SMILES is written, its molecule has the same geometries, and its mirror image has their mirror
    images: of the two hands the one whose SMILES comes first is embedded, and so it is where the
    SMILES leaves open nothing but which of the two is meant.

    Args:
        text: A SMILES of one molecule without net charge, no name behind it.
        max_atoms: Most atoms allowed, hydrogens included.
        count: Starts at most; those that end in the same minimum give one conformer.

    Returns:
        One to `count` conformers.

    Raises:
        InvalidSmilesError: The text is no SMILES, breaks valence rules, leaves electrons unpaired
            or holds several molecules.
        ConformerError: No geometry was found.
        MoleculeError: What `validate` refuses, or a net charge.
    """
    graph, is_mirrored = _read_smiles(text, max_atoms)
    energies = embed(graph, count)
    kept = _minima(energies)
    positions = np.stack([conformer.GetPositions() for conformer in graph.GetConformers()])
    if is_mirrored:
        positions[..., 0] *= -1
    found = Conformers(
        _numbers(graph), positions[kept], energies[kept], text, _isomers(graph, kept.tolist())
    )
    for one in found.positions:
        validate(Molecule(found.numbers, one), max_atoms)
    return found


def _minima(energies: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Indices by rising energy, of each minimum only the first."""
    kept: list[int] = []
    for i in np.argsort(energies, kind="stable").tolist():
        if not kept or energies[i] - energies[kept[-1]] > SAME_MINIMUM_KCAL:
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _isomers(graph: Chem.Mol, kept: list[int]) -> int:
    """How many stereoisomers some of the conformers are of; mirror images are one to the networks.

    Many open centres of rings leave no choice, and RDKit does not know: so conformers are looked
    at.
    """
    stated = Chem.StereoSpecified.Specified
    if all(item.specified == stated for item in Chem.FindPotentialStereo(graph, False)):
        return 1
    numbers = [conformer.GetId() for conformer in graph.GetConformers()]
    return len({_isomer(Chem.Mol(graph, False, numbers[k])) for k in kept})


def _isomer(placed: Chem.Mol) -> str:
    """The SMILES of a geometry's handedness, or of its mirror image's, whichever comes first."""
    Chem.AssignStereochemistryFrom3D(placed)
    for atom in placed.GetAtoms():
        if not _keeps_hand(atom):
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return min(Chem.MolToSmiles(hand) for hand in (placed, _mirror_image(placed)))


def _read_smiles(text: str, max_atoms: int) -> tuple[Chem.Mol, bool]:
    """The graph with explicit hydrogens, and whether it is the mirror image of what is meant.

    Its atoms are in the order of its canonical SMILES.
    """
    graph = parse_smiles(text)
    _refuse_atoms(graph, max_atoms)
    graph = _unlabelled(graph)
    _refuse_radicals(graph)
    fragments = len(Chem.GetMolFrags(graph))
    if fragments > 1:
        raise InvalidSmilesError(
            f"the SMILES holds {fragments} separate molecules ('.'): give each one by itself"
        )
    _choose_hand(graph)
    own = Chem.MolToSmiles(graph)
    first = min(own, Chem.MolToSmiles(_mirror_image(graph)))
    canonical = Chem.MolFromSmiles(first)
    graph = Chem.AddHs(canonical or graph)
    refuse_size(graph, max_atoms)
    _refuse_odd_electrons(graph)
    return graph, canonical is not None and first != own


def _unlabelled(graph: Chem.Mol) -> Chem.Mol:
    """Without numbers of atoms and isotopes: of those accepted none makes another molecule."""
    if not any(atom.GetAtomMapNum() or atom.GetIsotope() for atom in graph.GetAtoms()):
        return graph
    for atom in graph.GetAtoms():
        atom.SetAtomMapNum(0)
        atom.SetIsotope(0)
    return Chem.MolFromSmiles(Chem.MolToSmiles(graph)) or graph


def _choose_hand(graph: Chem.Mol) -> None:
    """Give an open centre one of its two hands if no other has one: both have the same values."""
    centres = [
        (graph.GetAtomWithIdx(element.centeredOn), element.specified)
        for element in Chem.FindPotentialStereo(graph)
        if element.type == Chem.StereoType.Atom_Tetrahedral
    ]
    lasting = [atom for atom, _ in centres if _keeps_hand(atom)]
    is_any_stated = any(stated == Chem.StereoSpecified.Specified for _, stated in centres)
    if len(lasting) == 1 and not is_any_stated:  # else the two hands would be two isomers
        lasting[0].SetChiralTag(Chem.ChiralType.CHI_TETRAHEDRAL_CCW)


def _keeps_hand(atom: Chem.Atom) -> bool:
    """Of four neighbours; with three, nitrogen turns over."""
    return bool(atom.GetTotalDegree() == 4)


def _mirror_image(graph: Chem.Mol) -> Chem.Mol:
    """All tetrahedral centres with the other handedness."""
    mirrored = Chem.Mol(graph)
    for atom in mirrored.GetAtoms():
        atom.InvertChirality()
    return mirrored


def mol_block_to_molecule(text: str, geometry: Geometry, max_atoms: int) -> Molecule:
    """A molecule from a mol block (V2000 or V3000), with its own coordinates.

    Bonds are used only to see whether hydrogens are missing.

    Args:
        text: One mol block, with coordinates of all atoms, hydrogens included.
        geometry: Where the coordinates come from.
        max_atoms: Most atoms allowed.

    Returns:
        The molecule, named as in the block's first line.

    Raises:
        UnreadableError: It cannot be read.
        FlatMoleculeError: It is a drawing in two dimensions.
        MissingHydrogensError: It lacks hydrogens.
        MoleculeError: What `validate` refuses, or a net charge.
    """
    graph = parse_mol_block(text)
    with _rdkit_log():
        _refuse_atoms(graph, max_atoms)
        if _is_drawing(graph, text):
            raise FlatMoleculeError(
                "the mol block is a drawing in two dimensions: give one with 3D coordinates and "
                "explicit hydrogens, or a SMILES"
            )
        _refuse_missing_hydrogens(graph)
    name = graph.GetProp("_Name") if graph.HasProp("_Name") else ""
    molecule = _molecule(graph, geometry, name.strip())
    validate(molecule, max_atoms)
    return molecule


def relaxed_mol_block(text: str, max_atoms: int) -> Conformers:
    """The minimum of the force field that lies nearest to a geometry.

    Args:
        text: One mol block, with coordinates of all atoms, hydrogens included.
        max_atoms: Most atoms allowed.

    Returns:
        One geometry.

    Raises:
        ConformerError: The force fields do not know its bonding.
        MoleculeError: As from `mol_block_to_molecule`.
    """
    molecule = mol_block_to_molecule(text, "approximate", max_atoms)
    with _rdkit_log():
        graph = Chem.MolFromMolBlock(text, removeHs=False)
    if graph is None:
        raise ConformerError("the bonds of this mol block break valence rules")
    energy = minimise(graph, -1)
    positions = graph.GetConformer().GetPositions()[None]
    return Conformers(molecule.numbers, positions, np.array([energy]), molecule.name)


def parse_smiles(text: str) -> Chem.Mol:
    """The graph that a SMILES describes, of whatever elements and charge.

    Args:
        text: A SMILES, no name behind it.

    Returns:
        The graph, sanitized, hydrogens as in the text.

    Raises:
        InvalidSmilesError: The text is no SMILES, or breaks valence rules.
    """
    parameters: Any = Chem.SmilesParserParams()  # RDKit's type stubs are wrong about its fields
    parameters.allowCXSMILES = False
    parameters.parseName = False
    with _rdkit_log() as log:
        graph = Chem.MolFromSmiles(text, parameters)
        if graph is None:
            raise _why_not_smiles(text, parameters, log)
    return graph


def parse_mol_block(text: str) -> Chem.Mol:
    """The graph in a mol block (V2000 or V3000), as it stands there.

    Args:
        text: One mol block.

    Returns:
        The graph, not sanitized.

    Raises:
        UnreadableError: It cannot be read.
    """
    with _rdkit_log() as log:
        graph = Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)
        if graph is None:
            raise UnreadableError(f"not a mol block: {_reason(log.getvalue())}")
    return graph


def _is_drawing(graph: Chem.Mol, text: str) -> bool:
    if not graph.GetNumConformers():
        return True
    is_flat = not np.any(graph.GetConformer().GetPositions()[:, 2])
    return is_flat and text.split("\n")[1][20:22].upper() == "2D"


@contextlib.contextmanager
def _rdkit_log() -> Iterator[io.StringIO]:
    """RDKit says why it refuses only in its log: read it there."""
    rdBase.LogToPythonStderr()
    log, before = io.StringIO(), sys.stderr
    sys.stderr = log
    try:
        yield log
    finally:
        sys.stderr = before


def _reason(log: str) -> str:
    """The first line that RDKit logged, without time stamp and without the input."""
    lines = [re.sub(r"^\[[\d:]+\]\s*", "", line).strip() for line in log.splitlines()]
    lines = [line for line in lines if line and not set(line) <= set("*^~- ")]
    first = lines[0] if lines else "RDKit gives no reason"
    return re.sub(r"( for input:| while parsing:).*", "", first).removeprefix(
        "SMILES Parse Error: "
    )


def _why_not_smiles(text: str, parameters: Any, log: io.StringIO) -> MoleculeError:
    """The error for a SMILES that RDKit refuses: its syntax, or the chemistry it describes."""
    parameters.sanitize = False
    graph = Chem.MolFromSmiles(text, parameters)
    if graph is None:
        reason = _reason(log.getvalue())
        at = re.search(r"around position (\d+)", log.getvalue())
        if at and int(at[1]) <= len(text):
            reason += f" at character {at[1]} ({text[int(at[1]) - 1]!r})"
        return InvalidSmilesError(f"not a SMILES: {reason}")
    problems = [problem.Message() for problem in Chem.DetectChemistryProblems(graph)]
    reason = problems[0] if problems else _reason(log.getvalue())
    return InvalidSmilesError(f"impossible chemistry: {_count_from_one(reason)}")


def _count_from_one(reason: str) -> str:
    """RDKit counts atoms from 0; everybody else here from 1."""
    reason = re.sub(r"atom # (\d+) (\w+)", lambda m: f"atom {int(m[1]) + 1} ({m[2]})", reason)
    head, separator, atoms = reason.partition("Unkekulized atoms:")
    if separator:
        counted = ", ".join(str(int(atom) + 1) for atom in atoms.split())
        return f"the aromatic ring of atoms {counted} has no alternating bonds"
    return head.strip()


def _label(atom: Chem.Atom) -> str:
    return f"atom {atom.GetIdx() + 1} ({atom.GetSymbol()})"


def _refuse_atoms(graph: Chem.Mol, max_atoms: int) -> None:
    if graph.GetNumAtoms() == 0:
        raise EmptyMoleculeError("the molecule has no atoms: give at least one")
    refuse_size(graph, max_atoms)
    for atom in graph.GetAtoms():
        number, isotope = atom.GetAtomicNum(), atom.GetIsotope()
        if number not in _ISOTOPES:
            raise UnsupportedElementError(f"{_label(atom)}: QM9 holds only {_SYMBOLS}")
        if isotope not in (0, _ISOTOPES[number]):
            raise UnsupportedElementError(
                f"{_label(atom)} is the isotope of mass {isotope}: QM9 holds only "
                f"{_ISOTOPES[number]}{atom.GetSymbol()}"
            )
    charge = Chem.GetFormalCharge(graph)
    if charge:
        ions = [f"{_label(a)} {a.GetFormalCharge():+d}" for a in graph.GetAtoms()]
        ions = [ion for ion in ions if not ion.endswith("+0")]
        raise ChargedError(
            f"the molecule has the net charge {charge:+d} ({', '.join(ions[:5])}): QM9 holds only "
            "molecules without net charge"
        )


def _refuse_radicals(graph: Chem.Mol) -> None:
    for atom in graph.GetAtoms():
        if atom.GetNumRadicalElectrons():
            raise InvalidSmilesError(
                f"{_label(atom)} has {atom.GetNumRadicalElectrons()} unpaired electrons: QM9 holds "
                "only closed shells; add the hydrogens or bonds that are missing"
            )


def _refuse_odd_electrons(graph: Chem.Mol) -> None:
    """Of a graph with hydrogens: bonds like `->` leave some that RDKit counts on no atom."""
    electrons = int(_numbers(graph).sum())
    if electrons % 2:
        raise InvalidSmilesError(
            f"the molecule has an odd number of electrons, {electrons}: QM9 holds only closed "
            "shells; look at its bonds, and add the hydrogens that are missing"
        )


def refuse_size(graph: Chem.Mol, max_atoms: int) -> None:
    """Refuse what is too large before RDKit works on it.

    Args:
        graph: Any.
        max_atoms: Most atoms allowed, hydrogens that are not written out not counted.

    Raises:
        TooLargeError: It has more.
    """
    if graph.GetNumAtoms() > max_atoms:
        raise TooLargeError(
            f"the molecule has {graph.GetNumAtoms()} atoms or more; the limit is {max_atoms}"
        )


def _refuse_missing_hydrogens(graph: Chem.Mol) -> None:
    whole = Chem.Mol(graph)
    if Chem.SanitizeMol(whole, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE:
        whole = Chem.Mol(graph)
        whole.UpdatePropertyCache(strict=False)
    lacking = [atom for atom in whole.GetAtoms() if atom.GetTotalNumHs()]
    if lacking:
        missing = sum(atom.GetTotalNumHs() for atom in lacking)
        raise MissingHydrogensError(
            f"{missing} hydrogens are missing: {_label(lacking[0])} lacks "
            f"{lacking[0].GetTotalNumHs()}; give a mol block with explicit hydrogens, or a SMILES"
        )


def _molecule(graph: Chem.Mol, geometry: Geometry, name: str) -> Molecule:
    return Molecule(_numbers(graph), graph.GetConformer().GetPositions(), geometry, name)


def _numbers(graph: Chem.Mol) -> npt.NDArray[np.int64]:
    return np.array([atom.GetAtomicNum() for atom in graph.GetAtoms()], dtype=np.int64)
