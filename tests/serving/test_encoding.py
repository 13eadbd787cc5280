"""Answers on the wire: the bytes of `json`, whatever they hold."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.encoding import encode, encode_results

SMALL = st.floats(-1e-3, 1e-3)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | SMALL
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def plainly(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


@given(PLAIN)
@example([1e-4, 9.9e-5, 1e-5, 1.5e-05, 1e-7, -3e-9, 1e-10, 2.5e-100, 5e-324, -0.0])
@example([1e15, 1e16, 1.5e17, 1e22, 1.7976931348623157e308, 2**63, 2**64, 10**40])
@example(["\x00\x1b\x7f", "\u00e9", "\ud800", "\U0001f600", "e-7", 'a "quoted" \\ / text'])
@example({"null": None, "a": [None, 0.1]})
def test_the_bytes_are_those_of_json(value: Any) -> None:
    text = encode(value)
    assert text == plainly(value)
    assert json.loads(text) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_come_back_as_they_were(number: float) -> None:
    read = json.loads(encode([number, None]))[0]
    assert (read, math.copysign(1, read)) == (number, math.copysign(1, number))


@given(st.dictionaries(st.text(), PLAIN, max_size=2), st.lists(PLAIN, max_size=4))
def test_results_one_by_one_are_the_same(head: dict[str, Any], results: list[Any]) -> None:
    head.pop("results", None)
    assert encode_results(head, results) == plainly({**head, "results": results})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_answer(bad: float) -> None:
    for value in (bad, [bad], (1.0, bad), {"a": {"b": [None, bad]}}):
        with pytest.raises(ValueError, match="JSON"):
            encode(value)
        with pytest.raises(ValueError, match="JSON"):
            encode_results({}, [1, value])
