"""Molecules that stay on the device, and batches cut from them by index arithmetic.

No worker processes, no collation, no loop over molecules: an epoch is one permutation, one sort
and a few gathers a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qm9flow.data.grouping import plan_groups
from qm9flow.data.store import Dataset
from qm9flow.errors import ConfigError


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
    sizes: npt.NDArray[np.int64]

    @classmethod
    def load(
        cls,
        dataset: Dataset,
        indices: npt.NDArray[np.int64],
        encoded: npt.NDArray[np.float64] | None,
        device: torch.device | str,
    ) -> "ResidentMolecules":
        """Copy molecules to a device.

        Args:
            dataset: Where they come from.
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
        starts = dataset.ptr[indices]
        sizes = dataset.ptr[np.asarray(indices) + 1] - starts
        within = np.arange(sizes.max())
        is_atom = within < sizes[:, None]
        atoms = (starts[:, None] + within)[is_atom]
        numbers = np.zeros(is_atom.shape, dtype=np.int64)
        positions = np.zeros((*is_atom.shape, 3), dtype=np.float32)
        numbers[is_atom] = dataset.numbers[atoms]
        positions[is_atom] = dataset.positions[atoms]
        return cls(
            torch.from_numpy(numbers).to(device),
            torch.from_numpy(positions).to(device),
            torch.from_numpy(encoded.astype(np.float32)).to(device),
            np.asarray(sizes, dtype=np.int64),
        )

    def __len__(self) -> int:
        """Number of molecules."""
        return len(self.sizes)

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
        group_step, ends, padded = plan_groups(step, self.sizes[order], n_steps, max_groups)
        index = torch.from_numpy(order).to(self.numbers.device)
        return self._steps(index, group_step.tolist(), ends.tolist(), padded.tolist())

    def ordered(self, batch_atoms: int) -> Iterator[Batch]:
        """Every molecule once, by size: big batches with hardly any padding, for evaluation.

        Args:
            batch_atoms: Most atoms of a batch, padding included; a larger molecule goes alone.

        Yields:
            Batches of ascending size.
        """
        order = np.argsort(self.sizes, kind="stable")
        sizes = self.sizes[order]
        index = torch.from_numpy(order).to(self.numbers.device)
        start = 0
        while start < len(self):
            ahead = sizes[start : start + max(batch_atoms, 1)]
            padded_atoms = ahead * np.arange(1, len(ahead) + 1)
            end = start + max(1, int(np.searchsorted(padded_atoms, batch_atoms, "right")))
            yield self._gather(index[start:end], int(sizes[end - 1]))
            start = end

    def _steps(
        self, index: Tensor, group_step: list[int], ends: list[int], padded: list[int]
    ) -> Iterator[list[Batch]]:
        groups: list[Batch] = []
        start, current = 0, 0
        for step, end, size in zip(group_step, ends, padded, strict=True):
            if step != current:
                yield groups
                groups, current = [], step
            groups.append(self._gather(index[start:end], size))
            start = end
        yield groups

    def _gather(self, index: Tensor, size: int) -> Batch:
        return Batch(
            self.numbers[:, :size].index_select(0, index),
            self.positions[:, :size].index_select(0, index),
            self.targets.index_select(0, index),
            index,
        )
