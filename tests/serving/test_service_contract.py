"""The HTTP contract: entries one by one, one error shape, nothing but 200 and the promised 4xx."""

import json
import math
import pickle
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import served
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError
from starlette.testclient import TestClient

from qm9flow import properties
from qm9flow.data.store import Dataset
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Molecule
from qm9flow.molecules.smiles import from_smiles
from qm9flow.molecules.xyz import from_xyz
from qm9flow.properties import TARGETS
from qm9flow.registry.find import FoundModel

H2 = {"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0.74]]}
WATER = {"xyz": served.WATER}
DRAWING = """methanol
     drawn          2D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.4000    0.0000    0.0000 O   0  0
  1  2  1  0
M  END
"""


def predict(client: TestClient, *molecules: object, **more: object) -> dict[str, Any]:
    """The answer to a request that must succeed; checked against the description."""
    response = client.post("/predict", json={"molecules": molecules, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    check(client, "Answer", answer)
    assert len(answer["results"]) == len(molecules)
    return answer


def in_json_schema(part: Any) -> Any:
    """OpenAPI 3.0 says in other words than JSON Schema what may be null."""
    if isinstance(part, list):
        return [in_json_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    plain = {key: in_json_schema(value) for key, value in part.items() if key != "nullable"}
    return plain | {"type": [part["type"], "null"]} if part.get("nullable") is True else plain


@cache
def validator(client: TestClient, schema: str) -> jsonschema.Draft202012Validator:
    described = in_json_schema(client.get("/docs.json").json())
    return jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{schema}", **described})


def check(client: TestClient, schema: str, value: object) -> None:
    """Hold a body against its schema in `/docs.json`."""
    validator(client, schema).validate(value)


def refused(client: TestClient, response: Any, status: int, code: str) -> str:
    """The message of an error of the one shape."""
    assert response.status_code == status, response.text
    body = response.json()
    check(client, "Error", body)
    assert body["error"]["code"] == code
    message: str = body["error"]["message"]
    assert message
    return message


def test_the_example_of_the_contract(client: TestClient) -> None:
    answer = predict(client, WATER, {"smiles": "CCO"}, {"smiles": "C1CC"})
    assert answer["model"] == {
        "name": "qm9flow",
        "version": 1,
        "alias": "champion",
        "provider": "cpu",
    }
    assert answer["units"] == {item.name: item.unit for item in properties.PROPERTIES}
    water, ethanol, broken = answer["results"]
    assert water["ok"]
    assert list(water["values"]) == list(TARGETS)
    assert all(isinstance(value, float) for value in water["values"].values())
    assert water["warnings"] == []
    assert ethanol["ok"]
    assert "SMILES" in ethanol["warnings"][0]
    assert broken["error"]["code"] == "invalid_smiles"
    assert "unclosed ring" in broken["error"]["message"]


def test_values_are_those_of_the_predictor(
    client: TestClient, champion: FoundModel, dataset: Dataset
) -> None:
    chosen = [dataset.molecule(index) for index in (0, 3, 5000, 70_000, 130_830)]
    molecules = [*chosen, from_xyz(served.WATER), from_smiles("CC(=O)N")]
    predictions = Predictor(champion.bundle, provider="cpu", threads=1).predict(molecules)
    records = [
        {"numbers": item.numbers.tolist(), "positions": item.positions.tolist()} for item in chosen
    ]
    answer = predict(client, *records, WATER, {"smiles": "CC(=O)N"})
    for result, prediction in zip(answer["results"], predictions, strict=True):
        assert result["values"] == prediction.values
        assert result["warnings"] == list(prediction.warnings)


def test_the_identities_hold(client: TestClient) -> None:
    values = predict(client, WATER)["results"][0]["values"]
    assert values["gap"] == values["lumo"] - values["homo"]
    assert values["h"] - values["u"] == pytest.approx(0.0256926, abs=1e-6)
    assert values["a"] > values["b"] > values["c"] > 0


def test_atoms_and_linear_molecules_have_null_rotational_constants(client: TestClient) -> None:
    atom = {"numbers": [6], "positions": [[0, 0, 0]]}
    one, two = predict(client, atom, H2)["results"]
    assert [one["values"][name] for name in "abc"] == [None, None, None]
    assert two["values"]["a"] is None
    assert two["values"]["b"] == two["values"]["c"] > 0


def test_targets_are_chosen_by_name_in_the_order_asked(client: TestClient) -> None:
    everything = predict(client, WATER)["results"][0]["values"]
    answer = predict(client, WATER, targets=["gap", "u0_atom", "gap"])
    assert list(answer["results"][0]["values"]) == ["gap", "u0_atom"]
    assert answer["units"] == {"gap": "eV", "u0_atom": "eV"}
    for name, value in answer["results"][0]["values"].items():
        assert value == everything[name]
    assert predict(client, WATER, targets=None)["results"][0]["values"] == everything


def test_geometry_is_said_and_warned_of(client: TestClient) -> None:
    given_as = [{**WATER, "geometry": kind} for kind in ("dft", "approximate")]
    exact, rough = predict(client, *given_as)["results"]
    assert exact["warnings"] == []
    assert "approximate" in rough["warnings"][0]
    assert rough["values"] == pytest.approx(exact["values"], rel=1e-12)  # sums, row by row


@pytest.mark.parametrize(
    ("entry", "code", "words"),
    [
        ({"smiles": "C1CC"}, "invalid_smiles", "unclosed"),
        ({"smiles": 7}, "invalid_smiles", "text"),
        ({"smiles": "CCl"}, "unsupported_element", "atom 2"),
        ({"xyz": served.WATER.replace("O", "S")}, "unsupported_element", "line 3, atom 1"),
        ({"numbers": [1, 3], "positions": [[0, 0, 0], [1, 0, 0]]}, "unsupported_element", "3"),
        ({"smiles": "C[NH3+]"}, "charged", "+1"),
        ({"numbers": [1, 1], "positions": [[0, 0, 0], [0, 0, 0]]}, "coincident_atoms", "atom 2"),
        ({"numbers": [1], "positions": [[0, 0, math.nan]]}, "non_finite", "atom 1"),
        ({"numbers": [1], "positions": [[0, math.inf, 0]]}, "non_finite", "atom 1"),
        ({"numbers": [], "positions": []}, "empty", "no atoms"),
        ({"smiles": ""}, "empty", "empty"),
        ({"xyz": ""}, "empty", "empty"),
        ({"xyz": "hello"}, "unreadable", "line 1"),
        ({"sdf": "hello"}, "unreadable", "mol block"),
        ({"sdf": DRAWING}, "two_dimensional", "3D"),
        ({"sdf": DRAWING.replace("2D", "3D")}, "missing_hydrogens", "4 hydrogens"),
        ({}, "invalid_record", "smiles"),
        ({"smiles": "C", "name": "methane"}, "invalid_record", "name"),
        ([], "invalid_record", "object"),
        (None, "invalid_record", "object"),
        ({"smiles": "C" * 40}, "too_large", "100"),
        ({"numbers": [1] * 101, "positions": [[0, 0, 0]] * 101}, "too_large", "101"),
    ],
)
def test_a_bad_molecule_has_its_error_and_spoils_no_other(
    client: TestClient, entry: object, code: str, words: str
) -> None:
    alone = predict(client, WATER, WATER)["results"]
    body = json.dumps({"molecules": [WATER, entry, WATER]})  # writes NaN as clients do
    response = client.post("/predict", content=body)
    assert response.status_code == 200
    check(client, "Answer", response.json())
    first, bad, last = response.json()["results"]
    assert [first, last] == alone
    assert bad["ok"] is False
    assert bad["error"]["code"] == code
    assert words in bad["error"]["message"]


def test_all_bad_is_still_an_answer(client: TestClient) -> None:
    answer = predict(client, {"smiles": "C1CC"}, {"smiles": "CCl"}, None)
    assert [result["ok"] for result in answer["results"]] == [False] * 3
    assert list(answer) == ["model", "units", "level", "results"]


def test_no_molecules_no_results(client: TestClient) -> None:
    assert predict(client)["results"] == []


def test_order_is_kept(client: TestClient, dataset: Dataset) -> None:
    molecules = [dataset.molecule(index) for index in range(100, 130_000, 8000)]
    records = [
        {"numbers": item.numbers.tolist(), "positions": item.positions.tolist()}
        for item in molecules
    ]
    records[3] = {"smiles": "CCO"}
    records[7] = {"smiles": "no"}
    forward = predict(client, *records, targets=["a", "b", "c"])["results"]
    backward = predict(client, *records[::-1], targets=["a", "b", "c"])["results"]
    assert forward == backward[::-1]
    assert not forward[7]["ok"]
    # Rotational constants follow from the geometry: each result belongs to its molecule.
    for place, molecule in enumerate(molecules):
        if place not in (3, 7):
            expected = rotational(molecule)
            np.testing.assert_allclose(list(forward[place]["values"].values()), expected)


def rotational(molecule: Molecule) -> list[float]:
    from qm9flow.molecules.geometry import rotational_constants_ragged

    ptr = np.array([0, len(molecule)])
    found = rotational_constants_ragged(molecule.numbers, molecule.positions, ptr)
    constants: list[float] = found[0].tolist()
    return constants


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "bad_request", "JSON"),
        (b"{", "bad_request", "line 1"),
        (b"\xff\xfe", "bad_request", "UTF-8"),
        (b"[]", "bad_request", "object"),
        (b"null", "bad_request", "object"),
        (b"{}", "bad_request", "molecules"),
        (b'{"molecules": {"smiles": "C"}}', "bad_request", "list"),
        (b'{"molecules": "CCO"}', "bad_request", "list"),
        (b'{"molecules": [], "target": ["gap"]}', "bad_request", "'target'"),
        (b'{"molecules": [], "targets": "gap"}', "bad_request", "list"),
        (b'{"molecules": [], "targets": []}', "bad_request", "list"),
        (b'{"molecules": [], "targets": [1]}', "bad_request", "1"),
        (b'{"molecules": [], "targets": ["gap", "gip"]}', "unknown_target", "'gip'"),
        (b'{"molecules": [], "targets": ["\\ud800"]}', "unknown_target", "ud800"),
        (b'{"molecules": [' + b"0," * 20 + b"0]}", "too_many_molecules", "20"),
        (b"[" * 40_000, "bad_request", "deep"),
        (b'{"molecules": [' + b"9" * 5000 + b"]}", "bad_request", "number"),
        (pickle.dumps({"molecules": []}), "bad_request", "JSON"),
    ],
)
def test_a_malformed_body_is_refused_as_a_whole(
    client: TestClient, body: bytes, code: str, words: str
) -> None:
    message = refused(client, client.post("/predict", content=body), 400, code)
    assert words in message


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/vnd.bentoml+pickle"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_other_kinds_of_body_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/predict", content=pickle.dumps([]), headers=headers)
    message = refused(client, response, 415, "unsupported_media_type")
    assert message.startswith("send ")  # what to do


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "text/plain", "a/b+json"])
def test_json_under_any_of_its_names_is_read(client: TestClient, kind: str) -> None:
    response = client.post("/predict", content=b'{"molecules": []}', headers={"Content-Type": kind})
    assert response.status_code == 200


@pytest.mark.parametrize("size", [50_001, 399_000, 2_000_000])
def test_a_huge_body_is_refused(client: TestClient, size: int) -> None:
    body = b'{"molecules": []}'.ljust(size)
    message = refused(client, client.post("/predict", content=body), 413, "body_too_large")
    assert "50,000" in message
    assert client.post("/predict", content=body[:50_000]).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/predict/", 404, "not_found"),
        ("GET", "/predict", 405, "method_not_allowed"),
        ("DELETE", "/model", 405, "method_not_allowed"),
        ("POST", "/readyz", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("GET", "/schema.json", 404, "not_found"),
    ],
)
def test_unknown_routes_have_the_same_error_shape(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    message = refused(client, client.request(method, path), status, code)
    assert "/docs.json" in message


def test_health_and_model(client: TestClient, champion: FoundModel) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    check(client, "Ready", ready.json())
    assert ready.json()["provider"] == {"required": "cpu", "active": "cpu"}
    model = client.get("/model").json()
    check(client, "Model", model)
    assert (model["version"], model["alias"]) == (1, "champion")
    assert model["limits"]["molecules"] == 20
    assert model["training"]["validation_mae"] == {"homo": 0.05}
    assert str(champion.bundle) not in json.dumps(model)


def test_the_description_is_valid_and_names_every_code(client: TestClient) -> None:
    description = client.get("/docs.json").json()
    assert description["openapi"].startswith("3.0")
    assert set(description["paths"]) == {
        "/predict", "/draw", "/model", "/livez", "/readyz", "/metrics", "/docs.json",
    }  # fmt: skip
    codes = description["components"]["schemas"]["Failure"]["properties"]["error"]["properties"]
    assert codes["code"]["enum"] == [
        "charged", "coincident_atoms", "conformer_failed", "drawing_failed", "empty", "internal",
        "invalid_record", "invalid_smiles", "missing_hydrogens", "non_finite", "timeout",
        "too_large", "two_dimensional", "unreadable", "unsupported_element",
    ]  # fmt: skip
    for code in codes["code"]["enum"]:
        assert f"`{code}`: " in codes["code"]["description"]
    manual = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text()
    table = manual.partition("| code | what |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == codes["code"]["enum"]
    example = description["paths"]["/predict"]["post"]["requestBody"]["content"]
    for item in example["application/json"]["examples"].values():
        check(client, "PredictRequest", item["value"])
        answer = predict(client, *item["value"]["molecules"])
        assert answer["results"][0]["ok"]


def test_the_description_is_openapi(client: TestClient) -> None:
    description = client.get("/docs.json").json()
    validate(description)
    with pytest.raises(OpenAPIValidationError):
        validate({**description, "paths": {"/predict": {"post": {"responses": 1}}}})


def test_the_description_is_whole(client: TestClient) -> None:
    description = client.get("/docs.json").json()
    text = json.dumps(description)
    for kind, name in re.findall(r'"#/components/(\w+)/([\w-]+)"', text):
        assert name in description["components"][kind]
    operations = [way for path in description["paths"].values() for way in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        for status, response in operation["responses"].items():
            assert "X-Request-ID" in response["headers"]
            assert ("Retry-After" in response["headers"]) == (status == "503")
            for body in response["content"].values():
                for example in body.get("examples", {}).values():
                    check(client, body["schema"]["$ref"].rpartition("/")[2], example["value"])
    assert {"401", "403", "413", "503", "504"} <= set(
        description["paths"]["/predict"]["post"]["responses"]
    )
    for schema in description["components"]["schemas"].values():
        assert schema.get("required") != []


def test_metrics_count_and_stay_bounded(client: TestClient) -> None:
    predict(client, WATER, {"smiles": "C1CC"})
    before = client.get("/metrics").text
    for number in range(20):
        client.get(f"/made/up/{number}")
    after = client.get("/metrics").text
    assert 'qm9flow_molecules_total{outcome="invalid_smiles"}' in before
    assert 'qm9flow_requests_total{route="/predict",status="200"}' in before
    assert "made" not in after
    assert len(after.splitlines()) <= len(before.splitlines()) + 25


record_like = st.one_of(
    st.just(WATER),
    st.just({"smiles": "CO"}),
    st.fixed_dictionaries({"smiles": st.text("CNOFc1()=#[]+-@.%", max_size=8)}),
    st.fixed_dictionaries({"xyz": st.text("HCO 0123.\n-eD", max_size=30)}),
    st.fixed_dictionaries(
        {
            "numbers": st.lists(st.sampled_from([1, 6, 8, 17, 0, -1, 10**30, "C", None])),
            "positions": st.lists(st.lists(st.floats() | st.integers(), max_size=4)),
        }
    ),
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
)
request_like = st.one_of(
    st.fixed_dictionaries(
        {"molecules": st.lists(record_like, max_size=4)},
        optional={"targets": st.lists(st.sampled_from([*TARGETS, "x", 1, None]), max_size=3)},
    ),
    st.dictionaries(st.sampled_from(["molecules", "targets", "x"]), record_like),
    record_like,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request_like)
def test_no_json_body_breaks_the_service(client: TestClient, request: Any) -> None:
    response = client.post("/predict", content=json.dumps(request))
    body = response.json()
    if response.status_code == 200:
        check(client, "Answer", body)
        assert len(body["results"]) == len(request["molecules"])
    else:
        assert response.status_code == 400
        check(client, "Error", body)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.sampled_from(["", "application/json", "text/plain"]))
def test_no_bytes_break_the_service(client: TestClient, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/predict", content=b'{"molecules":[' + body, headers=headers)
    assert response.status_code in (200, 400)
    check(client, "Answer" if response.status_code == 200 else "Error", response.json())
