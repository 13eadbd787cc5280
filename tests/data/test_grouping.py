"""Groups of a step: complete, sorted, and of the lowest cost that there is."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qm9flow.data.grouping import GROUP_COST_PAIRS, plan_groups


def cheapest(sizes: list[int], max_groups: int) -> int:
    """By trying all cuts of the sorted sizes."""
    sizes, best = sorted(sizes), None
    for n_groups in range(1, min(max_groups, len(sizes)) + 1):
        for inner in combinations(range(1, len(sizes)), n_groups - 1):
            ends = [*inner, len(sizes)]
            starts = [0, *inner]
            cost = sum(
                (end - start) * sizes[end - 1] ** 2 + GROUP_COST_PAIRS
                for start, end in zip(starts, ends, strict=True)
            )
            best = cost if best is None else min(best, cost)
    assert best is not None
    return best


steps = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=9), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(steps, st.integers(1, 4))
def test_lowest_cost(sizes_of_step: list[list[int]], max_groups: int) -> None:
    step = np.repeat(np.arange(len(sizes_of_step)), [len(sizes) for sizes in sizes_of_step])
    sizes = np.array([size for sizes in sizes_of_step for size in sorted(sizes)])
    plan = plan_groups(step, sizes, len(sizes_of_step), max_groups)
    group_step, ends, padded = plan.step, plan.ends, plan.padded
    starts = np.concatenate([[0], ends[:-1]])
    assert ends[-1] == len(sizes)
    assert (ends > starts).all()
    for number, of_step in enumerate(sizes_of_step):
        mine = group_step == number
        assert 1 <= mine.sum() <= max_groups
        costs = (ends - starts)[mine] * padded[mine] ** 2 + GROUP_COST_PAIRS
        assert costs.sum() == cheapest(of_step, max_groups)
    for start, end, size, number in zip(starts, ends, padded, group_step, strict=True):
        assert sizes[start:end].max() == size
        assert (step[start:end] == number).all()


@pytest.mark.parametrize("n_steps", [1023, 1024, 1025, 2500])
def test_many_steps_are_planned_in_pieces(n_steps: int) -> None:
    rng = np.random.default_rng(n_steps)
    step = np.repeat(np.arange(n_steps), 3)
    sizes = np.sort(rng.integers(3, 30, (n_steps, 3)), axis=1).reshape(-1)
    plan = plan_groups(step, sizes, n_steps, 4)
    group_step, ends, padded = plan.step, plan.ends, plan.padded
    assert np.unique(group_step).tolist() == list(range(n_steps))
    assert ends[-1] == len(sizes)
    assert (padded == sizes[ends - 1]).all()
