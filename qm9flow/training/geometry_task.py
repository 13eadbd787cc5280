"""Learning to refine geometries."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from qm9flow.config import TrainConfig
from qm9flow.data.geometry_set import GeometrySet
from qm9flow.data.relaxed import open_relaxed
from qm9flow.data.resident import Batch, ResidentMolecules
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError
from qm9flow.nn.pairs import pair_distances, pair_mask
from qm9flow.nn.refiner import Refiner
from qm9flow.training.metrics import training_sample
from qm9flow.training.mode import evaluating
from qm9flow.training.predict import BATCH_ATOMS
from qm9flow.training.refined import atoms_of
from qm9flow.training.trunk_task import TrunkTask

BONDED_ANGSTROM = 1.65
"""Pairs nearer than that are counted as bonded: all but a few of QM9's bonds, and nothing else."""


AS_MADE = 0.4
"""Of the molecules that the force field moved little, the share that is shown as it left them."""
LEAST_SHARE = -0.5
"""Of the force field's displacements, that the other molecules have: negative ones are errors of
the opposite sign."""
SCALE = 0.004
"""Standard deviation of what multiplies the size of the others."""
FAR_ANGSTROM = 0.3
"""A molecule is shown as it is if an atom was moved farther: on a straight way between two torsions
atoms come too close to each other."""


class GeometryTask(TrunkTask):
    """From approximate geometries to DFT's.

    Two thirds of the molecules are shown as the force field left them. The others have a
    random share of its displacements, and are a little too large or small as a whole: what other
    methods err by, which the network is to undo just as well, and to leave alone where there is
    nothing to undo.

    The error of a geometry, in 1/angstrom, is the mean over its pairs of atoms of
    |d - d_DFT| / d_DFT^2: short distances, which depend on the surroundings alone, count most, and
    the position and orientation of the whole do not matter.

    Attributes:
        geometries: Those that it learns from, as the force field left them.
    """

    def __init__(self, config: TrainConfig, dataset: Dataset, device: torch.device) -> None:
        """Load the molecules.

        Args:
            config: The training.
            dataset: All molecules.
            device: Where it runs.

        Raises:
            ConfigError: The split has fewer molecules than asked for, or none of those asked for
                can be used.
            CacheError: The approximate geometries have not been made yet.
        """
        sample = training_sample(config, dataset)
        self.geometries = _pairs_of_geometries(dataset, sample.train, device)
        self._validation = _pairs_of_geometries(dataset, sample.validation, device)
        super().__init__(config, Refiner, self.geometries, self._validation)

    def batches(
        self, molecules: int, batch_size: int, generator: torch.Generator
    ) -> Iterator[list[Batch]]:
        """As in `Task`."""
        for groups in self.geometries.first(molecules).batches(batch_size, generator):
            yield [_varied(group, generator) for group in groups]

    def terms(self, network: Callable[..., Tensor], group: Batch) -> Tensor:
        """As in `Task`."""
        rounds = network(group.numbers, group.positions)
        errors = [_distance_errors(refined, group)[0] for refined in rounds.unbind()]
        return torch.stack(errors).mean(dim=0)[:, None]

    def validate(self, network: nn.Module) -> dict[str, float]:
        """As in `Task`."""
        totals = np.zeros(5)
        device = self._validation.numbers.device
        with evaluating(network):
            for batch in self._validation.ordered(BATCH_ATOMS[device.type]):
                refined = network(batch.numbers, batch.positions)[-1]
                error, off, true, pairs = _distance_errors(refined, batch)
                bonded = pairs & (true < BONDED_ANGSTROM)
                of_bonded, of_all = off[bonded], off[pairs]
                sums = [float(item.sum()) for item in (error, of_bonded, of_all)]
                totals += np.array([*sums, len(of_bonded), len(of_all)])
        return {
            "val/score": float(totals[0]) / self.val_molecules,
            "val/bonded/mae": float(totals[1] / max(totals[3], 1)),
            "val/distance/mae": float(totals[2] / max(totals[4], 1)),
        }


def _pairs_of_geometries(
    dataset: Dataset, asked: npt.NDArray[np.int64], device: torch.device
) -> ResidentMolecules:
    """Approximate geometries, and as targets DFT's positions, (N * 3,), 0 for padding.

    DFT's are laid over the approximate ones.
    """
    relaxed = open_relaxed(dataset)
    known = asked[np.diff(relaxed.first)[asked] > 0]
    molecules, places = _alike(dataset, relaxed, known)
    if not len(molecules):
        raise ConfigError(
            f"none of {len(asked):,} molecules has an approximate geometry whose atoms come in "
            "QM9's order: take more for training and validation"
        )
    sizes = dataset.sizes[molecules]
    is_atom = np.arange(sizes.max()) < sizes[:, None]
    true = np.zeros((*is_atom.shape, 3), dtype=np.float64)
    true[is_atom] = dataset.positions[atoms_of(dataset, molecules)]
    approximate = np.zeros_like(true)
    approximate[is_atom] = relaxed.positions[atoms_of(relaxed, places)]
    laid = superposed(true, approximate, is_atom)
    return ResidentMolecules.load(relaxed, places, laid.reshape(len(places), -1), device)


def superposed(
    moved: npt.NDArray[np.float64],
    still: npt.NDArray[np.float64],
    is_atom: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Turn and shift geometries so that they lie as near as possible to others.

    Source: W. Kabsch, Acta Cryst. A 32, 922 (1976).

    Args:
        moved: (n, N, 3), what is turned.
        still: (n, N, 3), what it is laid over, atom by atom.
        is_atom: (n, N), False for padding.

    Returns:
        (n, N, 3), 0 for padding.
    """
    weights = is_atom[..., None] / is_atom.sum(axis=1)[:, None, None]
    aims = (still * weights).sum(axis=1, keepdims=True)
    centred = (moved - (moved * weights).sum(axis=1, keepdims=True)) * is_atom[..., None]
    u, _, vt = np.linalg.svd(centred.transpose(0, 2, 1) @ (still - aims))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]  # a rotation, never a mirror image
    laid: npt.NDArray[np.float64] = (centred @ u @ vt + aims) * is_atom[..., None]
    return laid


def _varied(batch: Batch, generator: torch.Generator) -> Batch:
    """Some molecules as they are, the others with other errors."""
    draws = torch.rand(2, len(batch.numbers), 1, 1, generator=generator)
    sizes = 1 + SCALE * torch.randn(len(batch.numbers), 1, 1, generator=generator)
    draws, sizes = draws.to(batch.positions.device), sizes.to(batch.positions.device)
    true = batch.targets.view(len(batch.numbers), -1, 3)[:, : batch.positions.shape[1]]
    moves = batch.positions - true
    shares = LEAST_SHARE + (1 - LEAST_SHARE) * draws[1]
    is_near = moves.norm(dim=2).amax(dim=1)[:, None, None] < FAR_ANGSTROM
    others = sizes * (true + shares * moves)
    shown = torch.where((draws[0] > AS_MADE) & is_near, others, batch.positions)
    return replace(batch, positions=shown)


def _alike(
    dataset: Dataset, relaxed: GeometrySet, molecules: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Those whose atoms come in the same order in both, and where their geometries are."""
    places = relaxed.first[molecules]
    differs = (
        relaxed.numbers[atoms_of(relaxed, places)] != dataset.numbers[atoms_of(dataset, molecules)]
    )
    owner = np.repeat(np.arange(len(molecules)), dataset.sizes[molecules])
    is_same = np.bincount(owner[differs], minlength=len(molecules)) == 0
    return molecules[is_same], places[is_same]


def _distance_errors(refined: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B,), 1/angstrom; and (B, N, N): how far distances are off, true ones, which there are."""
    B, N = batch.numbers.shape
    true = batch.targets.view(B, -1, 3)[:, :N]
    pairs = pair_mask(batch.numbers > 0)
    distances = pair_distances(true, pairs)
    off = (pair_distances(refined, pairs) - distances).abs() * pairs
    count = pairs.sum(dim=(1, 2)).clamp(min=1)
    return (off / distances.square()).sum(dim=(1, 2)) / count, off, distances, pairs
