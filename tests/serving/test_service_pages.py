"""Drawings and positions over HTTP, and the files of the pages: types, tags, policies."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
from starlette.testclient import TestClient
from test_service_contract import check, predict, refused

from qm9flow.config import ServeConfig
from qm9flow.data.store import Dataset
from qm9flow.molecules.geometry import rotational_constants_ragged
from qm9flow.molecules.smiles import from_smiles
from qm9flow.properties import PROPERTIES
from qm9flow.registry import pretrained
from qm9flow.registry.find import FoundModel
from serving import pages
from serving.engine import Engine

WATER = {"xyz": served.WATER}
FILES = sorted(path.name for path in pages.FOLDER.iterdir())


def draw(client: TestClient, *molecules: object) -> list[dict[str, Any]]:
    """Results of a request that must succeed; checked against the description."""
    response = client.post("/draw", json={"molecules": molecules})
    assert response.status_code == 200, response.text
    check(client, "Drawings", response.json())
    results: list[dict[str, Any]] = response.json()["results"]
    assert len(results) == len(molecules)
    return results


def test_molecules_are_drawn_one_by_one(client: TestClient) -> None:
    ethanol, broken, water = draw(client, {"smiles": "CCO"}, {"smiles": "C1CC"}, WATER)
    assert ethanol["svg"].rstrip().endswith("</svg>")
    assert water["ok"]
    assert broken["error"]["code"] == "invalid_smiles"
    assert draw(client) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "bad_request"),
        (b'{"molecules": [], "targets": ["gap"]}', "bad_request"),
        (b'{"molecules": [' + b"0," * 20 + b"0]}", "too_many_molecules"),
    ],
)
def test_a_bad_request_for_drawings_is_refused(client: TestClient, body: bytes, code: str) -> None:
    assert refused(client, client.post("/draw", content=body), 400, code)


def test_a_geometry_comes_back_as_it_was_given(client: TestClient, dataset: Dataset) -> None:
    molecule = dataset.molecule(70_000)
    given = {"numbers": molecule.numbers.tolist(), "positions": molecule.positions.tolist()}
    (result,) = predict(client, given, include=["positions"])["results"]
    assert result["geometry"] == {"source": "dft", "conformers": 1, **given, "refined": False}


def test_without_a_refiner_a_smiles_has_its_lowest_conformer(client: TestClient) -> None:
    found = from_smiles("CCO")
    (result,) = predict(client, {"smiles": "CCO"}, include=["positions"])["results"]
    assert result["geometry"]["positions"] == found.lowest.positions.tolist()
    assert result["geometry"]["numbers"] == found.numbers.tolist()
    assert result["geometry"]["refined"] is False


def test_positions_are_the_refined_ones_that_rotational_constants_are_of(
    client: TestClient,
) -> None:
    found = FoundModel(pretrained.bundle(), alias=pretrained.NAME)
    engine = Engine(found, ServeConfig(conformer_workers=1, device="cpu"))
    records = [{"smiles": "OCCO"}, {**WATER, "geometry": "approximate"}, WATER]
    body = {"molecules": records, "targets": ["a", "b", "c"], "include": ["positions"]}
    try:
        answer = json.loads(engine.respond(json.dumps(body).encode()))
    finally:
        engine.close()
    check(client, "Answer", answer)
    for result in answer["results"]:
        numbers = np.array(result["geometry"]["numbers"])
        positions = np.array(result["geometry"]["positions"])
        (constants,) = rotational_constants_ragged(numbers, positions, np.array([0, len(numbers)]))
        assert list(result["values"].values()) == pytest.approx(constants, rel=1e-9)
    geometries = [result["geometry"] for result in answer["results"]]
    assert [geometry["refined"] for geometry in geometries] == [True, True, False]
    moved = np.subtract(geometries[1]["positions"], geometries[2]["positions"])
    assert 1e-4 < np.abs(moved).max() < 0.1


def test_positions_come_only_when_asked_for(client: TestClient) -> None:
    plain = predict(client, WATER, {"smiles": "C1CC"})["results"]
    more = predict(client, WATER, {"smiles": "C1CC"}, include=["positions"])["results"]
    assert set(plain[0]["geometry"]) == {"source", "conformers"}
    assert more[0]["values"] == plain[0]["values"]
    assert more[1] == plain[1]
    assert predict(client, WATER, include=[])["results"] == plain[:1]
    assert predict(client, WATER, include=None)["results"] == plain[:1]


@pytest.mark.parametrize("include", ["positions", ["energies"], [1], [["positions"]], {}])
def test_nothing_else_can_be_included(client: TestClient, include: object) -> None:
    response = client.post("/predict", json={"molecules": [], "include": include})
    assert "positions" in refused(client, response, 400, "bad_request")


def test_the_model_says_its_targets_in_words(client: TestClient) -> None:
    targets = client.get("/model").json()["targets"]
    assert [item["name"] for item in targets] == [item.name for item in PROPERTIES]
    assert targets[0]["description"] == "dipole moment"


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/page/{name}" for name in FILES)])
def test_files_have_types_tags_and_come_compressed(client: TestClient, path: str) -> None:
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.status_code == 200
    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    assert plain.headers["Cache-Control"] == "no-cache"
    assert client.get(path).content == plain.content  # the client unpacks
    again = client.get(path, headers={"If-None-Match": plain.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.head(path).status_code == 200


def test_the_viewer_comes_from_its_package(client: TestClient) -> None:
    script = pages.viewer_script()
    assert script is not None
    raw = client.get("/page/3dmol.js")
    assert raw.headers["Content-Type"].startswith("text/javascript")
    assert raw.content == script.read_bytes()
    assert b"window.$3Dmol=" in raw.content
    assert int(raw.headers["Content-Length"]) < len(raw.content) / 3
    assert len(gzip.compress(raw.content)) < 1_100_000


def test_without_the_package_only_the_viewer_is_missing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "VIEWER_PACKAGE", "qm9flow_has_no_such_package")
    refused(client, client.get("/page/3dmol.js"), 404, "not_found")
    assert client.get("/page/viewer.html").status_code == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2Fapp.py", "index.html%00", "%2e%2e%2fpages.py"]
)
def test_no_other_file_is_given_out(client: TestClient, name: str) -> None:
    refused(client, client.get(f"/page/{name}"), 404, "not_found")


@pytest.mark.parametrize("name", FILES)
def test_files_name_only_files_that_are_there(client: TestClient, name: str) -> None:
    text = (pages.FOLDER / name).read_text()
    named = re.findall(r'(?:src|href|from|frame\.src) ?=? ?"(\.[^"#]+)"', text)
    for file in named:
        inside = file.startswith(("./page/", "./static_content/", "./docs"))
        path = file.removeprefix(".") if inside else f"/page/{file.removeprefix('./')}"
        assert client.get(path).status_code == 200, file
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)


@pytest.mark.parametrize(("path", "inline"), [("/", False), ("/page/viewer.html", True)])
def test_policies_allow_this_server_only(client: TestClient, path: str, inline: bool) -> None:
    answer = client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    assert ("'unsafe-inline'" in policy) is inline  # styles of the viewer's own script
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", answer.text)
    assert ("sandbox allow-scripts" in policy) is inline


def test_the_description_can_be_tried(client: TestClient) -> None:
    page = client.get("/docs")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 6
    assert all(client.get(file.removeprefix(".")).status_code == 200 for file in files)


def test_every_file_of_the_page_is_known(client: TestClient) -> None:
    assert {Path(name).suffix for name in FILES} == {".css", ".html", ".js", ".svg"}
    used = "".join((pages.FOLDER / name).read_text() for name in FILES)
    for name in FILES:
        assert name in used or name in ("index.html", "docs.html")
