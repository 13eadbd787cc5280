"""Which molecules of a step are padded to the same size.

A step's molecules, sorted by size, are cut into a few groups; each group is padded to its largest
molecule. Dense networks work on pairs, so a group of n molecules padded to N atoms costs n N^2,
plus a fixed cost for starting the group's operations. The cuts below have the lowest total cost
(dynamic programming over sizes, for many steps at once).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

GROUP_COST_PAIRS = 2000
"""Fixed cost of a group in pairs: starting some hundred small operations takes about as long as
2,000 pairs do on one CPU core."""

_STEPS_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of molecules, step after step.

    Attributes:
        step: (n_groups,), ascending, the step of each group.
        ends: (n_groups,), where each group ends among the molecules; it starts where the one
            before ends.
        padded: (n_groups,), atoms that its molecules are padded to.
    """

    step: Indices
    ends: Indices
    padded: Indices


def plan_groups(step: Indices, sizes: Indices, n_steps: int, max_groups: int) -> Groups:
    """Groups of all steps.

    Args:
        step: (n,), ascending, the step of each molecule, 0 to n_steps - 1.
        sizes: (n,), atoms of each molecule, ascending within a step.
        n_steps: Number of steps; none is empty.
        max_groups: Most groups a step.

    Returns:
        The groups of lowest total cost.
    """
    largest = int(sizes.max())
    found = []
    for first in range(0, n_steps, _STEPS_AT_ONCE):
        last = min(first + _STEPS_AT_ONCE, n_steps)
        members = slice(*np.searchsorted(step, [first, last]))
        width = largest + 1
        flat = (step[members] - first) * width + sizes[members]
        histogram = np.bincount(flat, minlength=(last - first) * width).reshape(-1, width)
        found.append(_cuts(np.cumsum(histogram, axis=1), max_groups))
    is_cut = np.concatenate(found)
    group_step, padded = np.nonzero(is_cut)
    ends = np.searchsorted(
        step * (largest + 1) + sizes, group_step * (largest + 1) + padded, "right"
    )
    return Groups(group_step, ends, padded)


def _cuts(below: Indices, max_groups: int) -> npt.NDArray[np.bool_]:
    """Where to cut, from (n_steps, largest + 1) numbers of molecules up to each size.

    Returns:
        (n_steps, largest + 1), whether a group ends at that size.
    """
    n_steps, width = below.shape
    squares = np.arange(width) ** 2
    # group_cost[:, i, j]: of molecules of sizes i + 1 to j, padded to j
    members = below[:, None, :] - below[:, :, None]
    group_cost = members * squares + np.where(members > 0, GROUP_COST_PAIRS, 0)
    group_cost[:, np.tri(width, k=-1, dtype=bool)] = np.iinfo(np.int32).max
    cost = group_cost[:, 0, :]
    choices = []
    for _ in range(max_groups - 1):
        total = cost[:, :, None] + group_cost
        choices.append(total.argmin(axis=1))
        cost = total.min(axis=1)
    is_cut = np.zeros((n_steps, width), dtype=bool)
    rows, end = np.arange(n_steps), (below < below[:, -1:]).sum(axis=1)
    for choice in reversed(choices):
        is_cut[rows, end] = True
        end = choice[rows, end]
    is_cut[rows, end] = True
    return is_cut & _has_members(below, is_cut)


def _has_members(below: Indices, is_cut: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether molecules lie between each cut and the cut before."""
    before = np.maximum.accumulate(np.where(is_cut, below, 0), axis=1)
    before = np.concatenate([np.zeros_like(before[:, :1]), before[:, :-1]], axis=1)
    return below > before
