"""Molecules that stay on the device with all of their conformers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qm9flow.data.geometries import Candidates
from qm9flow.data.resident import ResidentMolecules

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ConformerBatch:
    """Some molecules, all conformers of each.

    Attributes:
        numbers: (G, N), int64, atomic numbers, 0 for padding.
        positions: (G, N, 3), float32, angstrom.
        energies: (G,), float32, kcal/mol above the molecule's lowest.
        is_known: (G,), bool, whether it is the one that QM9 has.
        owner: (G,), int64, 0 to B - 1, whose it is.
        index: (B,), int64, the molecules' places among those that were loaded.
    """

    numbers: Tensor
    positions: Tensor
    energies: Tensor
    is_known: Tensor
    owner: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class ResidentConformers:
    """Padded conformers on one device.

    Attributes:
        geometries: All conformers, one molecule after another.
        starts: (n + 1,), molecule i has the conformers starts[i] to starts[i + 1] - 1.
        energies: (g,), float32, kcal/mol above each molecule's lowest.
        is_known: (g,), bool.
        sizes: (n,), atoms of each molecule, on the host.
    """

    geometries: ResidentMolecules
    starts: Tensor
    energies: Tensor
    is_known: Tensor
    sizes: Indices

    @classmethod
    def load(
        cls, candidates: Candidates, molecules: Indices, device: torch.device | str
    ) -> "ResidentConformers":
        """Copy molecules to a device.

        Args:
            candidates: Where they come from.
            molecules: (n,), places in the dataset, at least one; all of them have conformers.
            device: Where they go.

        Returns:
            The molecules, in their order.
        """
        counts = np.diff(candidates.first)[molecules]
        starts = np.concatenate([[0], np.cumsum(counts)])
        lowest = np.repeat(candidates.first[molecules], counts)
        chosen = lowest + np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        above = candidates.energies[chosen] - candidates.energies[lowest]
        places = candidates.places[chosen]
        geometries = ResidentMolecules.load(candidates.atoms, places, None, device)
        return cls(
            geometries,
            torch.from_numpy(starts).to(device),
            torch.from_numpy(above).to(device),
            torch.from_numpy(candidates.is_known[chosen]).to(device),
            geometries.sizes[starts[:-1]],
        )

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.sizes)

    def batches(
        self, molecules: int, batch_size: int, generator: torch.Generator, *, most: int
    ) -> Iterator[ConformerBatch]:
        """One epoch: every molecule once, those of a batch about as large as each other.

        Args:
            molecules: The first ones, so many.
            batch_size: Molecules of a batch.
            generator: On the CPU.
            most: Conformers of a molecule: QM9's own, and of the others as many as are left,
                drawn anew each time.

        Yields:
            Batches in random order.
        """
        order = torch.randperm(molecules, generator=generator).numpy()
        order = order[np.argsort(self.sizes[order], kind="stable")]
        ends = range(0, molecules, batch_size)
        for i in torch.randperm(len(ends), generator=generator).tolist():
            chosen = order[ends[i] : ends[i] + batch_size]
            owner, places = self._conformers_of(chosen)
            keep = _some_of_each(owner, self.is_known[places], most, generator)
            yield self._batch(chosen, owner[keep], places[keep])

    def ordered(self, batch_size: int) -> Iterator[ConformerBatch]:
        """Every molecule once, by size.

        Args:
            batch_size: Molecules of a batch.

        Yields:
            Batches of ascending size.
        """
        order = np.argsort(self.sizes, kind="stable")
        for start in range(0, len(order), batch_size):
            yield self.some(order[start : start + batch_size])

    def some(self, molecules: Indices) -> ConformerBatch:
        """Some molecules.

        Args:
            molecules: (B,), their places.

        Returns:
            All of their conformers.
        """
        return self._batch(molecules, *self._conformers_of(molecules))

    def _conformers_of(self, molecules: Indices) -> tuple[Tensor, Tensor]:
        """(G,) and (G,), which of the molecules each conformer belongs to, and its place."""
        chosen = torch.from_numpy(molecules).to(self.starts.device)
        counts = self.starts.diff()[chosen]
        owner = torch.repeat_interleave(torch.arange(len(chosen), device=counts.device), counts)
        return owner, self.starts[chosen][owner] + _within(owner, counts)

    def _batch(self, molecules: Indices, owner: Tensor, places: Tensor) -> ConformerBatch:
        width = int(self.sizes[molecules].max())
        return ConformerBatch(
            self.geometries.numbers[:, :width][places],
            self.geometries.positions[:, :width][places],
            self.energies[places],
            self.is_known[places],
            owner,
            torch.from_numpy(molecules).to(owner.device),
        )


def _within(owner: Tensor, counts: Tensor) -> Tensor:
    """(G,), the how manieth of its molecule each conformer is, from 0."""
    first = counts.cumsum(0) - counts
    return torch.arange(len(owner), device=owner.device) - first[owner]


def _some_of_each(owner: Tensor, is_known: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """(up to G,), places of the known ones and of random others, `most` of each owner."""
    lots = torch.rand(len(owner), generator=generator).to(owner.device)
    drawn = torch.argsort(owner + 0.5 * torch.where(is_known, 0.0, lots).double())
    return drawn[_within(owner, torch.bincount(owner)) < most].sort().values
