"""Tables for people: aligned, readable numbers."""

import pytest

from qm9flow.evaluation.text_tables import aligned, markdown, number

ROWS = [
    {"target": "mu", "MAE": 0.043, "n": 12345, "as listed": "0.1"},
    {"target": "a|b", "MAE": None, "n": 7, "as listed": "-"},
]


@pytest.mark.parametrize(
    ("value", "shown"), [(2.5e-6, "2.5e-06"), (0.0312345, "0.03123"), (843.81, "843.8"),
                         (12345.6, "12346"), (0.0, "0"), (float("nan"), "nan"), (None, "-"),
                         (-13.912, "-13.91")],
)  # fmt: skip
def test_numbers_are_readable(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_numbers_stand_at_the_right_texts_at_the_left() -> None:
    assert aligned(ROWS).splitlines() == [
        "target      MAE       n  as listed",
        "mu      0.04300  12,345        0.1",
        "a|b           -       7          -",
    ]


def test_markdown_is_a_table() -> None:
    assert markdown(ROWS).splitlines() == [
        "| target | MAE | n | as listed |",
        "| --- | ---: | ---: | ---: |",
        "| mu | 0.04300 | 12,345 | 0.1 |",
        "| a\\|b | - | 7 | - |",
    ]
