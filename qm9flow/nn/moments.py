"""Where a molecule's atoms lie from its centre: what dipoles and extents are made of."""

import torch
from torch import Tensor


def from_centre(numbers: Tensor, positions: Tensor) -> Tensor:
    """Positions from the centre of nuclear charge, where QM9's electronic extent has its origin.

    Args:
        numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
        positions: (B, N, 3), angstrom.

    Returns:
        (B, N, 3), angstrom; 0 where there is no atom.
    """
    charges = numbers[:, :, None].to(positions.dtype)  # (B, N, 1)
    total = charges.sum(dim=1, keepdim=True).clamp(min=1)
    centre = (charges * positions).sum(dim=1, keepdim=True) / total  # (B, 1, 3)
    return torch.where(charges > 0, positions - centre, 0.0)


def nuclear_extent(numbers: Tensor, positions: Tensor) -> Tensor:
    """sum_i Z_i |r_i - c|^2, as `qm9flow.molecules.geometry.nuclear_extents` but in angstrom^2.

    Args:
        numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
        positions: (B, N, 3), angstrom.

    Returns:
        (B, 1), angstrom^2 (bare numbers lose digits in an exported graph, so that the conversion
        is left to whoever has a buffer for it), in the dtype of `positions`.
    """
    squared = from_centre(numbers, positions).square().sum(dim=2)  # (B, N)
    return (numbers * squared).sum(dim=1, keepdim=True)
