"""Molecules and files that no user would send: each is judged, and touches no other."""

import json
import time
from typing import Any

import fuzzing
import pytest
import served
from hypothesis import strategies as st
from starlette.testclient import TestClient
from test_service_contract import check

from serving.openapi.examples import HYDROGEN

WATER = {"xyz": served.WATER}
SECONDS = 60.0
"""An answer that takes longer hangs: RDKit has ten seconds for a molecule, thirty for all."""

SECRETS = ("Traceback", "site-packages", ".py", "/tmp")
SYMBOLS = ("C", "N", "O", "F", "H", "c", "n", "o", "[C]", "[nH]", "[N+]", "[O-]", "[13C@@H]", "S")
BONDS = ("", "-", "=", "#", "$", ":", "/", "\\", ".", "(", ")", "1", "2", "%10", "%99", "[", "]")
NUMBERS = (
    "0", "-0", "1e-300", "1e308", "-1e308", "1e309", "nan", "-inf", "Infinity", "1.5D+2", "1*^-3",
    "0x1p3", "1_000", "9" * 400, "١٢٣", "1,5", "", "+-1", "1e", "1e99999999999",
)  # fmt: skip
JUNK = ("\x00", "\ufeff", "\u202e", "é", "💥", "\t", "\r", "\n\n", '"', "\\", "{}", "'; --", "%s%n")

coordinates = st.one_of(
    st.floats(-3, 3),
    st.floats(),  # all that float64 holds: NaN, infinity, 1e308, 5e-324
    st.sampled_from([1e-12, 1e6, 1e17, 3.5e38, -1e300, 2**63, -(10**400)]),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | coordinates,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
elements = st.sampled_from([1, 1, 6, 7, 8, 9]) | anything
kinds = st.sampled_from(["dft", "approximate", "smiles", "DFT", ""]) | anything
broken_smiles = st.one_of(
    st.lists(st.sampled_from(SYMBOLS) | st.sampled_from(BONDS), max_size=14).map("".join),
    st.text(max_size=20),
    st.tuples(st.sampled_from(["C", "C(", "[", "C1CC2", "N.", "=C", "F#"]), st.integers(1, 90)).map(
        lambda part: part[0] * part[1]
    ),
    st.tuples(st.sampled_from(["CCO", "c1ccccc1", "CC(=O)N"]), st.sampled_from(JUNK)).map("".join),
    anything,
)


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    """Elements and positions, as many of one as of the other in most cases."""
    numbers = draw(st.lists(elements, max_size=6))
    rows = st.lists(coordinates, min_size=3, max_size=3)
    exact = st.lists(rows, min_size=len(numbers), max_size=len(numbers))
    return {"numbers": numbers, "positions": draw(exact | st.lists(rows | anything) | anything)}


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """A file in which pieces were left out, put in, doubled, or exchanged."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(
            st.sampled_from(NUMBERS)
            | st.sampled_from(JUNK)
            | st.sampled_from([text[start:stop] * 2, text, "\n" * 40, "M  END\n$$$$\n", "M  CHG"])
            | st.text(max_size=8)
        )
        text = text[:start] + piece + text[stop:]
    return text


records = st.one_of(
    st.fixed_dictionaries({"smiles": broken_smiles}, optional={"geometry": kinds}),
    arrays(),
    st.builds(lambda record, kind: {**record, "geometry": kind}, arrays(), kinds),
    st.dictionaries(
        st.sampled_from(["smiles", "xyz", "sdf", "numbers", "positions", "geometry", "x"]), anything
    ),
    anything,
)
files = st.one_of(
    st.fixed_dictionaries({"xyz": damaged(served.WATER)}, optional={"geometry": kinds}),
    st.fixed_dictionaries({"sdf": damaged(HYDROGEN)}, optional={"geometry": kinds}),
    st.fixed_dictionaries({"xyz": st.text(max_size=60)}),
    st.fixed_dictionaries({"sdf": st.text(max_size=60)}),
)
include = st.sampled_from([None, [], ["positions"]])


@pytest.fixture(scope="module")
def alone(client: TestClient) -> dict[str, Any]:
    """Water's values, with nothing strange beside it."""
    values: dict[str, Any] = ask(client, "/predict", {"molecules": [WATER]})[0]["values"]
    return values


def ask(client: TestClient, path: str, request: Any) -> list[dict[str, Any]]:
    """The results of a request that must succeed, in time and as described."""
    began = time.monotonic()
    response = client.post(path, content=json.dumps(request))  # writes NaN, as clients do
    assert time.monotonic() - began < SECONDS
    assert response.status_code == 200, response.text
    answer = json.loads(response.text, parse_constant=no_number)
    check(client, {"/predict": "Answer", "/draw": "Drawings"}[path], answer)
    results: list[dict[str, Any]] = answer["results"]
    assert len(results) == len(request["molecules"])
    return results


def no_number(text: str) -> None:
    raise AssertionError(f"the answer holds {text}")


def judge(results: list[dict[str, Any]]) -> None:
    """A molecule is refused for what it is, never for what broke."""
    for result in results:
        if not result["ok"]:
            error = result["error"]
            assert error["code"] != "internal", error
            assert 0 < len(error["message"]) < 1000
            assert not any(word in error["message"] for word in SECRETS), error


def predict_strange(client: TestClient, alone: dict[str, Any], case: tuple[Any, Any]) -> None:
    """Strange molecules among water and water, which are as ever."""
    strange, included = case
    request = {"molecules": [WATER, *strange, WATER], "include": included}
    results = ask(client, "/predict", request)
    judge(results)
    for water in (results[0], results[-1]):
        assert water["values"] == pytest.approx(alone, rel=1e-6, abs=1e-4)


@fuzzing.rounds(150, 3000)
def test_no_molecule_breaks_the_service(
    client: TestClient, alone: dict[str, Any], part: fuzzing.Round
) -> None:
    cases_of = st.tuples(st.lists(records, min_size=1, max_size=3), include)
    part.run(lambda case: predict_strange(client, alone, case), cases_of)


@fuzzing.rounds(100, 2000)
def test_no_file_breaks_the_service(
    client: TestClient, alone: dict[str, Any], part: fuzzing.Round
) -> None:
    cases_of = st.tuples(st.lists(files, min_size=1, max_size=3), include)
    part.run(lambda case: predict_strange(client, alone, case), cases_of)


@fuzzing.rounds(60, 1000)
def test_nothing_breaks_the_drawing(client: TestClient, part: fuzzing.Round) -> None:
    def draw(strange: list[Any]) -> None:
        results = ask(client, "/draw", {"molecules": [*strange, WATER]})
        judge(results)
        assert results[-1]["ok"]

    part.run(draw, st.lists(records | files, min_size=1, max_size=3))
