"""Sums of messages over neighbours, a few molecules at a time.

The one hot spot of the message-passing network. Written as a function with its own backward pass
because what autograd would keep, (B, N, K, h), is far larger than a cache: it would be written to
memory and read back three times. Here a few molecules go through all steps while their share
of it stays in the cache, and the backward pass makes it again instead of keeping it.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CPU_BLOCK_ATOMS = 256
"""Atoms in a block, for each thread: enough rows for matrix products at full speed (blocks of 70
lose a third of it at h = 128), few enough for a cache (whole batches of 2,304 lose a third)."""
GPU_BLOCK_NUMBERS = 2**28
"""Numbers in the largest temporary of a block on a GPU: 1 GB of float32."""


def sum_messages(edges: Tensor, features: Tensor, rows: Tensor, matrices: Tensor) -> Tensor:
    """Sum messages over senders: out_i = sum_jk relu(rows_k . edges_ji) matrices_k^T features_j.

    Multiply-adds for each molecule: N^2 K E for relu, N^2 K c to sum over senders, N K c h to
    multiply; the order matters, a matrix for each edge would cost N^2 K c h.

    Args:
        edges: (B, N, N, E), sender first; all zero where there is no pair.
        features: (B, N, c), of the senders.
        rows: (K, E).
        matrices: (K, c, h).

    Returns:
        (B, N, h). Differentiable once in all four arguments.
    """
    if torch.compiler.is_exporting():  # a loop over an unknown number of blocks has no graph
        return _plain(edges, features, rows, matrices)
    summed: Tensor = _SumMessages.apply(edges, features, rows, matrices)
    return summed


def _plain(edges: Tensor, features: Tensor, rows: Tensor, matrices: Tensor) -> Tensor:
    B, N, c = features.shape
    K, _, h = matrices.shape
    phi = F.relu(edges @ rows.t())  # (B, N, N, K)
    sums = phi.view(B, N, N * K).transpose(1, 2) @ features  # (B, N * K, c)
    return (sums.view(B * N, K * c) @ matrices.reshape(K * c, h)).view(B, N, h)


def block_size(like: Tensor, N: int, K: int, c: int) -> int:
    """Molecules that are computed together.

    Args:
        like: On the device that computes.
        N: Atoms of a molecule.
        K: Of `sum_messages`.
        c: Of `sum_messages`.

    Returns:
        At least 1.
    """
    atoms = CPU_BLOCK_ATOMS * torch.get_num_threads()
    if like.is_cuda:
        atoms = GPU_BLOCK_NUMBERS // (K * max(c, N))
    return max(1, atoms // N)


class _Blocks:
    """Buffers for a few molecules, and the steps that forward and backward share."""

    def __init__(self, edges: Tensor, features: Tensor, rows: Tensor) -> None:
        self.edges, self.features, self.rows = edges, features, rows
        B, N, c = features.shape
        self.N, self.c, self.K = N, c, len(rows)
        self.size = min(B, block_size(features, N, self.K, c))
        self._phi = features.new_empty(self.size * N * N, self.K)
        self._sums = features.new_empty(self.size, N * self.K, c)

    def __iter__(self) -> Iterator[slice]:
        """The molecules of each block."""
        molecules = len(self.features)
        for start in range(0, molecules, self.size):
            yield slice(start, min(start + self.size, molecules))

    def edges_of(self, block: slice) -> Tensor:
        """(b * N * N, E)."""
        return self.edges[block].reshape(-1, self.edges.shape[-1])

    def sums_of(self, block: slice) -> tuple[Tensor, Tensor]:
        """phi: (b, N, N * K), and its sums over senders: (b, N * K, c). Both will be reused."""
        b = block.stop - block.start
        flat = self._phi[: b * self.N * self.N]
        torch.mm(self.edges_of(block), self.rows.t(), out=flat).relu_()
        phi = flat.view(b, self.N, self.N * self.K)
        sums = torch.bmm(phi.transpose(1, 2), self.features[block], out=self._sums[:b])
        return phi, sums


class _SumMessages(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, edges: Tensor, features: Tensor, rows: Tensor, matrices: Tensor
    ) -> Tensor:
        B, N, c = features.shape
        K, _, h = matrices.shape
        ctx.save_for_backward(edges, features, rows, matrices)
        flat = matrices.reshape(K * c, h)
        out = features.new_empty(B, N, h)
        blocks = _Blocks(edges, features, rows)
        for block in blocks:
            _, sums = blocks.sums_of(block)
            torch.mm(sums.view(-1, K * c), flat, out=out[block].view(-1, h))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        edges, features, rows, matrices = ctx.saved_tensors
        N = features.shape[1]
        K, c, h = matrices.shape
        flat = matrices.reshape(K * c, h)
        grad = grad.contiguous()
        grad_edges = torch.empty_like(edges) if ctx.needs_input_grad[0] else None
        grad_features = torch.empty_like(features) if ctx.needs_input_grad[1] else None
        grad_rows, grad_flat = torch.zeros_like(rows), torch.zeros_like(flat)
        blocks = _Blocks(edges, features, rows)
        buffer = features.new_empty(blocks.size, N, N * K)
        for block in blocks:
            phi, sums = blocks.sums_of(block)
            grad_out = grad[block].view(-1, h)
            grad_flat.addmm_(sums.view(-1, K * c).t(), grad_out)
            torch.mm(grad_out, flat.t(), out=sums.view(-1, K * c))  # now the gradient of sums
            if grad_features is not None:
                torch.bmm(phi, sums, out=grad_features[block])
            grad_phi = buffer[: len(phi)]
            torch.bmm(features[block], sums.transpose(1, 2), out=grad_phi)
            grad_phi.mul_(phi.sign_())  # relu
            grad_rows.addmm_(grad_phi.view(-1, K).t(), blocks.edges_of(block))
            if grad_edges is not None:
                grad_edges[block] = (grad_phi.view(-1, K) @ rows).view_as(grad_edges[block])
        return grad_edges, grad_features, grad_rows, grad_flat.view(K, c, h)
