"""All pairs of atoms of each molecule, as dense tensors.

QM9's molecules have at most 29 atoms and 5 angstrom reach most of them, so a dense (B, N, N)
tensor wastes little and needs no edge lists, no scatter and no special case without edges.
"""

import torch
from torch import Tensor


def pair_mask(atoms: Tensor) -> Tensor:
    """Which pairs exist.

    Args:
        atoms: (B, N) bool, where there is an atom.

    Returns:
        (B, N, N) bool, true where there are two different atoms.
    """
    different = ~torch.eye(atoms.shape[1], dtype=torch.bool, device=atoms.device)
    return atoms[:, :, None] & atoms[:, None, :] & different


def pair_distances(positions: Tensor, pairs: Tensor) -> Tensor:
    """Distances between atoms.

    The root is taken in float64: torch's of float32 is not rounded correctly (on a CPU with AVX-512
    every sixth one is off, ONNX Runtime's none), and a network that looks far makes that large.

    Args:
        positions: (B, N, 3), angstrom.
        pairs: (B, N, N) bool, where there is a pair.

    Returns:
        (B, N, N), angstrom; 1 where there is no pair, because the square root has no gradient
        at zero.
    """
    difference = positions[:, :, None, :] - positions[:, None, :, :]  # (B, N, N, 3)
    squared = difference.square().sum(dim=-1)
    return torch.where(pairs, squared, 1.0).double().sqrt().to(positions.dtype)
