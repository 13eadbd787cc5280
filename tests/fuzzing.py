"""Rounds of random cases that can be had again: few in `make test`, many in `make test-all`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

_NOT_AT_ISSUE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@dataclass(frozen=True)
class Round:
    """Random cases, the same ones whenever it runs.

    Attributes:
        cases: How many.
        seed: Of the draws.
    """

    cases: int
    seed: int

    def run(self, test: Callable[[Any], None], values: SearchStrategy[Any]) -> None:
        """Run a test on its cases; one that fails is made small.

        Args:
            test: Asserts of one value.
            values: What to draw from.
        """
        limits = hypothesis.settings(
            max_examples=self.cases,
            deadline=None,
            database=None,  # the seed alone says what is drawn
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=_NOT_AT_ISSUE,
            print_blob=True,
        )
        hypothesis.seed(self.seed)(limits(hypothesis.given(values)(test)))()


def rounds(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrize a test by `part`, a round; its seed is in the test's name.

    Args:
        few: Cases of the round that always runs.
        many: Cases of the slow one, besides.
    """
    slow = [pytest.mark.slow, pytest.mark.timeout(3600)]
    return pytest.mark.parametrize(
        "part",
        [
            pytest.param(Round(few, seed=1), id=f"{few}-cases-of-seed-1"),
            pytest.param(Round(many, seed=2), id=f"{many}-cases-of-seed-2", marks=slow),
        ],
    )
