"""Geometries as a refiner makes them of others."""

import numpy as np
import numpy.typing as npt
import torch

from qm9flow.data.geometries import AtomArrays, Geometries
from qm9flow.data.resident import Atoms, ResidentMolecules
from qm9flow.nn.refiner import Refiner
from qm9flow.training.predict import BATCH_ATOMS

Indices = npt.NDArray[np.int64]


def refined(
    geometries: Geometries,
    refiner: Refiner,
    molecules: Indices,
    device: torch.device | str = "cpu",
) -> Geometries:
    """Refine the geometries of some molecules.

    Args:
        geometries: Of all molecules.
        refiner: Left in evaluation mode, on the device.
        molecules: (n,), places in the dataset; all of them have a geometry.
        device: Where to compute.

    Returns:
        All of them, those of the molecules refined.
    """
    places = geometries.of(molecules)
    positions = np.array(geometries.atoms.positions, dtype=np.float32)
    positions[atoms_of(geometries.atoms, places)] = moved(geometries.atoms, places, refiner, device)
    atoms = AtomArrays(geometries.atoms.ptr, geometries.atoms.numbers, positions)
    return Geometries.measured(atoms, geometries.first)


def atoms_of(atoms: Atoms, places: Indices) -> Indices:
    """The atoms of some geometries.

    Args:
        atoms: Geometries.
        places: (n,), which of them.

    Returns:
        (a,), places among the atoms, one geometry after another.
    """
    sizes = np.diff(atoms.ptr)[places]
    starts = np.cumsum(sizes) - sizes
    within = np.arange(sizes.sum()) - np.repeat(starts, sizes)
    return np.repeat(atoms.ptr[places], sizes) + within


def moved(
    atoms: Atoms, places: Indices, refiner: Refiner, device: torch.device | str
) -> npt.NDArray[np.float32]:
    """Where a refiner puts the atoms of some geometries.

    Args:
        atoms: Geometries.
        places: (n,), which of them.
        refiner: Left in evaluation mode, on the device.
        device: Where to compute.

    Returns:
        (a, 3), angstrom, one geometry after another.
    """
    resident = ResidentMolecules.load(atoms, places, None, device)
    found = torch.zeros_like(resident.positions)
    refiner.to(device).eval()
    with torch.inference_mode():
        for batch in resident.ordered(BATCH_ATOMS[torch.device(device).type]):
            width = batch.numbers.shape[1]
            found[batch.index, :width] = refiner.refined(batch.numbers, batch.positions)
    is_atom = (resident.numbers > 0).cpu().numpy()
    return np.asarray(found.cpu().numpy()[is_atom])
