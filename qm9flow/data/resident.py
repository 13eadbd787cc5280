"""Molecules that stay on the device, and batches cut from them by index arithmetic.

No worker processes, no collation, no loop over molecules: an epoch is one permutation, one sort
and a few gathers a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qm9flow.data.grouping import Groups, Indices, plan_groups
from qm9flow.errors import ConfigError


class Atoms(Protocol):
    """Geometries, one after another: QM9's own, or others of its molecules.

    Attributes:
        ptr: (G + 1,), int64; geometry g has the atoms ptr[g] to ptr[g + 1] - 1.
        numbers: (A,), atomic numbers.
        positions: (A, 3), angstrom.
    """

    @property
    def ptr(self) -> Indices:
        """Where geometries begin and end."""

    @property
    def numbers(self) -> npt.NDArray[np.uint8]:
        """Atomic numbers."""

    @property
    def positions(self) -> npt.NDArray[np.float32]:
        """Positions."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Molecules of similar size.

    Attributes:
        numbers: (B, N), int64, atomic numbers, 0 for padding.
        positions: (B, N, 3), float32, angstrom, 0 for padding.
        targets: (B, T), float32, encoded.
        index: (B,), int64, places among the molecules that were loaded.
    """

    numbers: Tensor
    positions: Tensor
    targets: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class ResidentMolecules:
    """Padded molecules on one device.

    Attributes:
        numbers: (n, N), int64, atomic numbers, 0 for padding.
        positions: (n, N, 3), float32, angstrom.
        targets: (n, T), float32, encoded.
        sizes: (n,), atoms of each molecule, on the host.
    """

    numbers: Tensor
    positions: Tensor
    targets: Tensor
    sizes: Indices

    @classmethod
    def load(
        cls,
        atoms: Atoms,
        indices: Indices,
        encoded: npt.NDArray[np.float64] | None,
        device: torch.device | str,
    ) -> "ResidentMolecules":
        """Copy molecules to a device.

        Args:
            atoms: Where they come from.
            indices: (n,), their places in it, at least one.
            encoded: (n, T), what the network learns; cast to float32. None means T = 0.
            device: Where they go.

        Returns:
            The molecules, in the order of `indices`.

        Raises:
            ConfigError: There are none, or `encoded` has another length.
        """
        if len(indices) == 0:
            raise ConfigError("there are no molecules to load: name at least one")
        encoded = np.zeros((len(indices), 0)) if encoded is None else encoded
        if len(encoded) != len(indices):
            raise ConfigError(f"{len(indices)} molecules, but targets of {len(encoded)}")
        starts = atoms.ptr[indices]
        sizes = atoms.ptr[np.asarray(indices) + 1] - starts
        within = np.arange(sizes.max())
        is_atom = within < sizes[:, None]
        places = (starts[:, None] + within)[is_atom]
        numbers = np.zeros(is_atom.shape, dtype=np.int64)
        positions = np.zeros((*is_atom.shape, 3), dtype=np.float32)
        numbers[is_atom] = atoms.numbers[places]
        positions[is_atom] = atoms.positions[places]
        return cls(
            torch.from_numpy(numbers).to(device),
            torch.from_numpy(positions).to(device),
            torch.from_numpy(encoded.astype(np.float32)).to(device),
            np.asarray(sizes, dtype=np.int64),
        )

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.sizes)

    def first(self, count: int) -> "ResidentMolecules":
        """The molecules that were loaded first; nothing is copied.

        Args:
            count: How many, at least one.

        Returns:
            They alone.
        """
        return ResidentMolecules(
            self.numbers[:count], self.positions[:count], self.targets[:count], self.sizes[:count]
        )

    def batches(
        self, batch_size: int, generator: torch.Generator, max_groups: int = 4
    ) -> Iterator[list[Batch]]:
        """One epoch: every molecule once, in random order.

        Args:
            batch_size: Molecules of an optimiser step; the last step may have fewer.
            generator: On the CPU; the same state gives the same batches on every device.
            max_groups: Most groups that a step is computed in.

        Yields:
            The groups of one step, each padded to its largest molecule only.

        Raises:
            ConfigError: A batch size or a number of groups below 1.
        """
        if batch_size < 1 or max_groups < 1:
            raise ConfigError(
                f"batch_size and max_groups must be at least 1, got {batch_size} and {max_groups}"
            )
        n = len(self)
        order = torch.randperm(n, generator=generator).numpy()
        step = np.arange(n) // batch_size
        order = order[np.lexsort((self.sizes[order], step))]
        n_steps = -(-n // batch_size)
        plan = plan_groups(step, self.sizes[order], n_steps, max_groups)
        return self._steps(order, plan)

    def ordered(self, batch_atoms: int) -> Iterator[Batch]:
        """Every molecule once, by size: big batches with hardly any padding, for evaluation.

        Args:
            batch_atoms: Most atoms of a batch, padding included; a larger molecule goes alone.

        Yields:
            Batches of ascending size.
        """
        order = np.argsort(self.sizes, kind="stable")
        sizes = self.sizes[order]
        ends = [0]
        while ends[-1] < len(self):
            ahead = sizes[ends[-1] : ends[-1] + max(batch_atoms, 1)]
            padded_atoms = ahead * np.arange(1, len(ahead) + 1)
            ends.append(ends[-1] + max(1, int(np.searchsorted(padded_atoms, batch_atoms, "right"))))
        plan = Groups(np.arange(len(ends) - 1), np.array(ends[1:]), sizes[np.array(ends[1:]) - 1])
        for step in self._steps(order, plan):
            yield from step

    def _steps(self, order: Indices, plan: Groups) -> Iterator[list[Batch]]:
        """The steps of a plan; what can be cut or gathered once an epoch is, not once a step."""
        index = torch.from_numpy(order).to(self.numbers.device)
        lengths = np.diff(plan.ends, prepend=0).tolist()
        sizes = range(self.numbers.shape[1] + 1)
        numbers_up_to = [self.numbers[:, :size] for size in sizes]
        positions_up_to = [self.positions[:, :size] for size in sizes]
        pieces = zip(
            plan.step.tolist(),
            plan.padded.tolist(),
            index.split(lengths),
            self.targets.index_select(0, index).split(lengths),
            strict=True,
        )
        for _, groups in groupby(pieces, key=itemgetter(0)):
            yield [
                Batch(
                    numbers_up_to[size].index_select(0, places),
                    positions_up_to[size].index_select(0, places),
                    targets,
                    places,
                )
                for _, size, places, targets in groups
            ]
