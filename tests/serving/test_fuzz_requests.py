"""Requests made from the OpenAPI description, and against it: no 5xx, and answers as described."""

from typing import Any

import fuzzing
import pytest
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks
from starlette.testclient import TestClient

HOST = "http://testserver"
PROMISES = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
"""Not whether bad data are refused: of molecules each is judged by itself, with status 200."""

MODES = tuple(schemathesis.GenerationMode)


@pytest.fixture(scope="module")
def description(client: TestClient) -> Any:
    return schemathesis.openapi.from_dict(client.get("/docs.json").json())


def send(client: TestClient, case: Any) -> None:
    """Send what was made up, and hold the answer against the description."""
    asked = requests.Request(**wire(case)).prepare()
    response = client.request(
        str(asked.method), str(asked.url), content=asked.body, headers=dict(asked.headers)
    )
    case.validate_response(response, checks=PROMISES)
    assert len(response.headers["X-Request-ID"]) <= 64


def wire(case: Any) -> dict[str, Any]:
    """What of a case `requests` is told, to put it on the wire."""
    said = case.as_transport_kwargs(base_url=HOST)
    kept = ("method", "url", "headers", "params", "json", "data", "files", "cookies")
    return {name: said[name] for name in kept if said.get(name) is not None}


@fuzzing.rounds(60, 1000)
@pytest.mark.parametrize("mode", MODES, ids=[mode.value for mode in MODES])
@pytest.mark.parametrize("path", ["/predict", "/draw"])
def test_no_request_for_work_breaks_the_service(
    client: TestClient, description: Any, path: str, mode: Any, part: fuzzing.Round
) -> None:
    strategy = description[path]["POST"].as_strategy(generation_mode=mode)
    part.run(lambda case: send(client, case), strategy)


@fuzzing.rounds(5, 100)
@pytest.mark.parametrize("path", ["/model", "/livez", "/readyz", "/metrics", "/docs.json"])
def test_no_question_breaks_the_service(
    client: TestClient, description: Any, path: str, part: fuzzing.Round
) -> None:
    strategy = description[path]["GET"].as_strategy()
    part.run(lambda case: send(client, case), strategy)
