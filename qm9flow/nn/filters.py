"""Sums over neighbours under a filter for each pair, which is the same in both directions.

The hot spot of `qm9flow.nn.schnet` and `qm9flow.nn.painn`. On a CPU filters are made once for
both directions of a pair, and the sums have backward passes of their own, in operations small
enough for its caches.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def takes_all_pairs(like: Tensor) -> bool:
    """Whether to compute both directions of each pair with few large operations.

    Elsewhere, on a CPU, half the filters in operations small enough for its caches are faster.

    Args:
        like: On the device that computes.

    Returns:
        True on a GPU, and in graphs, where no loop over an unknown number of atoms has a place.
    """
    return torch.compiler.is_exporting() or like.device.type != "cpu"


def half_of_pairs(N: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Each pair of atoms once: atom i and atom i + s, around the end, for s = 1 to N / 2.

    In this order a sum over neighbours needs no index: row s meets the atoms shifted by s. With
    an even number of atoms the last row has its pairs in both directions.

    Args:
        N: Atoms of a molecule.
        device: Where the indices are needed.

    Returns:
        (S, N) and (S, N) int64 with S = N // 2: the first and the second atom.
    """
    first = torch.arange(N, device=device).expand(N // 2, N)
    shifts = torch.arange(1, N // 2 + 1, device=device)
    return first, (first + shifts[:, None]) % N


def filtered_pairs(*per_pair: Tensor) -> tuple[Tensor, ...]:
    """What filters are made of, for the pairs that get one.

    Args:
        per_pair: (..., N, N) each.

    Returns:
        Each as (..., S, N) in the order of `half_of_pairs`, or as it is where `takes_all_pairs`.
    """
    if takes_all_pairs(per_pair[0]):
        return per_pair
    i, j = half_of_pairs(per_pair[0].shape[-1], per_pair[0].device)
    return tuple(tensor[..., i, j] for tensor in per_pair)


def filtered_sum(filters: Tensor, features: Tensor) -> Tensor:
    """Sum filtered features over neighbours: out_i = sum_j W_ij * x_j, channel by channel.

    Because W_ij = W_ji, dense layers make half of the filters, and the sum over neighbours is its
    own derivative. Applying a filter's last layer per atom instead, as `qm9flow.nn.messages` does,
    would not pay: for each atom and channel that keeps as many numbers as the layer has inputs,
    and a filter for each pair as many as there are neighbours, 18.

    Args:
        filters: (B, S, N, F) in the order of `half_of_pairs`, or (B, N, N, F), symmetric, where
            `takes_all_pairs`.
        features: (B, N, F), or (B, 3, N, F) for vectors.

    Returns:
        The shape of `features`. Differentiable once in both arguments.
    """
    if takes_all_pairs(features):
        if features.dim() == 4:
            filters = filters[:, None]
        return (filters * features.unsqueeze(-3)).sum(dim=-2)
    summed: Tensor = _FilteredSum.apply(filters, features)
    return summed


def twice(features: Tensor) -> Tensor:
    """Atoms one after the other and then again: a slice of N is a shift around the end.

    Args:
        features: (..., N, F).

    Returns:
        (..., 2 N, F).
    """
    return torch.cat([features, features], dim=-2)


def folded(sums: Tensor) -> Tensor:
    """What was added to atoms beyond the end, added to those it was meant for.

    Args:
        sums: (..., 2 N, F).

    Returns:
        (..., N, F).
    """
    head, tail = sums.chunk(2, dim=-2)
    return head + tail


def _channels(features: Tensor) -> tuple[Tensor, ...]:
    return features.unbind(dim=1) if features.dim() == 4 else (features,)


def _shifted_sum(filters: Tensor, features: Tensor, shifted: Tensor) -> Tensor:
    """Of features that `shifted` holds twice."""
    N = features.shape[-2]
    sums = torch.zeros_like(shifted)
    channels = [_channels(tensor) for tensor in (features, shifted, sums)]
    for s, weight in enumerate(filters.unbind(dim=1), start=1):
        for x, x2, out in zip(*channels, strict=True):
            out[:, :N].addcmul_(weight, x2[:, s : s + N])
            if 2 * s < N:
                out[:, s : s + N].addcmul_(weight, x)
    return folded(sums)


class _FilteredSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, filters: Tensor, features: Tensor) -> Tensor:
        ctx.save_for_backward(filters, features)
        return _shifted_sum(filters, features, twice(features))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        filters, features = ctx.saved_tensors
        N = features.shape[-2]
        shifted, grad_shifted = twice(features), twice(grad)
        grad_filters = torch.empty_like(filters)
        channels = [_channels(t) for t in (features, shifted, grad, grad_shifted)]
        for s, out in enumerate(grad_filters.unbind(dim=1), start=1):
            for c, (x, x2, g, g2) in enumerate(zip(*channels, strict=True)):
                if c == 0:
                    torch.mul(g, x2[:, s : s + N], out=out)
                else:
                    out.addcmul_(g, x2[:, s : s + N])
                if 2 * s < N:
                    out.addcmul_(g2[:, s : s + N], x)
        return grad_filters, _shifted_sum(filters, grad, grad_shifted)


def directed_sum(filters: Tensor, features: Tensor, directions: Tensor) -> Tensor:
    """Sum filtered features along directions: out_ci = sum_j n_cij W_ij * x_j.

    Args:
        filters: (B, S, N, F) in the order of `half_of_pairs`, or (B, N, N, F), symmetric, where
            `takes_all_pairs`.
        features: (B, N, F).
        directions: (B, 3, S, N) or (B, 3, N, N), antisymmetric, finite.

    Returns:
        (B, 3, N, F). Differentiable once in all three arguments.
    """
    if takes_all_pairs(features):
        messages = filters * features[:, None]  # (B, N, N, F)
        return (directions.transpose(1, 2) @ messages).transpose(1, 2)
    summed: Tensor = _DirectedSum.apply(filters, features, directions)
    return summed


class _DirectedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, filters: Tensor, features: Tensor, directions: Tensor) -> Tensor:
        ctx.save_for_backward(filters, features, directions)
        B, N, channels = features.shape
        shifted = twice(features)
        sums = features.new_zeros(3, B, 2 * N, channels)
        message = torch.empty_like(features)
        for s, weight, along in _rows(filters, directions):
            torch.mul(weight, shifted[:, s : s + N], out=message)
            for out, n in zip(sums, along, strict=True):
                out[:, :N].addcmul_(message, n)
            if 2 * s < N:
                torch.mul(weight, features, out=message)
                for out, n in zip(sums, along, strict=True):
                    out[:, s : s + N].addcmul_(message, n, value=-1)
        return folded(sums).transpose(0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        filters, features, directions = ctx.saved_tensors
        N = features.shape[1]
        shifted, grad = twice(features), twice(grad)
        grad_filters = torch.empty_like(filters)
        sums = torch.zeros_like(shifted)
        grad_directions = torch.zeros_like(directions) if ctx.needs_input_grad[2] else None
        message = torch.empty_like(features)
        for s, weight, along in _rows(filters, directions):
            grad_weight = grad_filters[:, s - 1]
            _project(grad[:, :, :N], along, message)
            torch.mul(message, shifted[:, s : s + N], out=grad_weight)
            sums[:, s : s + N].addcmul_(message, weight)
            if 2 * s < N:
                _project(grad[:, :, s : s + N], along, message)
                grad_weight.addcmul_(message, features, value=-1)
                sums[:, :N].addcmul_(message, weight, value=-1)
            if grad_directions is not None:
                out = grad_directions[:, :, s - 1]  # (B, 3, N)
                out += (grad[:, :, :N] * (weight * shifted[:, s : s + N])[:, None]).sum(dim=-1)
                if 2 * s < N:
                    out -= (grad[:, :, s : s + N] * (weight * features)[:, None]).sum(dim=-1)
        return grad_filters, folded(sums), grad_directions


def _rows(filters: Tensor, directions: Tensor) -> Iterator[tuple[int, Tensor, tuple[Tensor, ...]]]:
    """For each shift: the shift, filters (B, N, F), three components of directions (B, N, 1)."""
    components = directions.unsqueeze(-1).unbind(dim=1)  # 3 of (B, S, N, 1)
    for row, weight in enumerate(filters.unbind(dim=1)):
        yield row + 1, weight, tuple(component[:, row] for component in components)


def _project(vectors: Tensor, along: tuple[Tensor, ...], out: Tensor) -> None:
    """out = sum_c n_c v_c, of vectors (B, 3, N, F) and directions (B, N, 1)."""
    x, y, z = vectors.unbind(dim=1)
    torch.mul(x, along[0], out=out).addcmul_(y, along[1]).addcmul_(z, along[2])
