"""The page in a real browser: what people type, drop, click, read and take away."""

import csv
import io
import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import served

pytest.importorskip("selenium")

from browser import Browser, opened, requested
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from qm9flow.cli.server import address, running_server
from qm9flow.config import ServeConfig
from qm9flow.properties import PROPERTIES, TARGETS
from qm9flow.registry import pretrained
from qm9flow.registry.find import FoundModel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MANY = [
    "CCO ethanol", "C1CC broken ring", "c1ccccc1 benzene", "CCl chloromethane", "C methane",
    "O water", "=HYPERLINK(1) formula", "N#N nitrogen", 'CC=O acet"aldehyde, pure', "CF -fluoride",
]  # fmt: skip
AT_ONCE = 3
"""Molecules that the server takes in one request."""
MOL_BLOCK = (
    "hydrogen\n  drawn\n\n  2  1  0  0  0  0            999 V2000\n"
    "    0.0000    0.0000    0.0000 H   0  0\n    0.7400    0.0000    0.0000 H   0  0\n"
    "  1  2  1  0\nM  END\n"
)
QM9_HYDROGEN = (
    "2\ngdb 1\t1.0\nH\t0.0\t0.0\t0.0\t0.1\nH\t0.74\t0.0\t0.0\t-1.0*^-6\n"
    "4400.1\n[H][H]\t[H][H]\nInChI=1S/H2/h1H\tInChI=1S/H2/h1H\n"
)
KEY = "a key of forty-two letters"


@pytest.fixture(scope="module")
def url(champion: FoundModel) -> Iterator[str]:
    """A server of its own processes, with small limits."""
    config = ServeConfig(
        bundle=str(champion.bundle),
        version=champion.version,
        alias=champion.alias,
        device="cpu",
        conformer_workers=1,
        max_molecules=AT_ONCE,
    )
    with running_server(config, *address("127.0.0.1", 0)) as server:
        server.wait_until_ready()
        yield server.url + "/"


@pytest.fixture(scope="module")
def browser(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(url, tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pretrained_url() -> Iterator[str]:
    """A server of the pretrained model, which has intervals, a domain and several conformers."""
    config = ServeConfig(
        bundle=str(pretrained.bundle()), version=None, alias=pretrained.NAME, device="cpu"
    )
    with running_server(config, *address("127.0.0.1", 0)) as server:
        server.wait_until_ready()
        yield server.url + "/"


@pytest.fixture
def pretrained_browser(
    browser: Browser, pretrained_url: str, monkeypatch: pytest.MonkeyPatch
) -> Browser:
    monkeypatch.setattr(browser, "url", pretrained_url)
    return browser


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """No test may leave a word in the console."""
    browser.complaints()
    yield
    assert browser.complaints() == []


def answer(url: str, *records: object) -> dict[str, Any]:
    """What the server says without the page."""
    body = json.dumps({"molecules": records}).encode()
    request = urllib.request.Request(url + "predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
    return found


def same(shown: str, value: float | None) -> bool:
    """Whether a text is that value, rounded."""
    if value is None:
        return shown == "\u2013"
    decimals = len(shown.partition(".")[2])
    return float(shown) == float(f"{value:.{decimals}f}")


def test_a_smiles_gives_all_values_with_units(browser: Browser, url: str) -> None:
    browser.open()
    browser.predict("CC(=O)N acetamide")
    result = answer(url, {"smiles": "CC(=O)N"})["results"][0]
    shown = browser.values()
    assert set(shown) == set(TARGETS)
    for name, (value, unit) in shown.items():
        assert same(value, result["values"][name]), (name, value)
        assert unit
    assert shown["alpha"][1] == "a\u2080\u00b3"
    assert len(shown["gap"][0].partition(".")[2]) == 3
    assert browser.text("card-name") == "acetamide"
    assert browser.text("formula") == "C2H5NO"
    assert browser.text("source") == "CC(=O)N"
    assert result["warnings"][0][1:] in browser.text("doubts")
    assert "qm9flow version 1, champion" in browser.text("made-by")
    for item in PROPERTIES:
        assert item.description.lower() in browser.text("values").lower()


def test_a_card_goes_when_other_molecules_come(browser: Browser) -> None:
    browser.open()
    browser.predict("CC(=O)N acetamide")
    assert browser.id("card").is_displayed()
    browser.predict("CCO ethanol\nO water")
    assert [row[1] for row in browser.table()] == ["ethanol", "water"]
    assert not browser.id("card").is_displayed()


def test_a_long_text_hides_no_error(browser: Browser) -> None:
    browser.open()
    browser.js("document.getElementById('text').value = 'C'.repeat(20000)")
    browser.id("predict").click()
    browser.done()
    assert "20,000 characters" in browser.text("card-error")
    assert browser.js("return document.getElementById('source').offsetHeight") < 120


def test_the_structure_is_drawn(browser: Browser) -> None:
    browser.open()
    browser.predict("c1ccccc1 benzene")
    browser.until("document.getElementById('drawing').naturalWidth > 50")
    assert browser.id("drawing").get_attribute("alt") == "Structure of benzene"


def test_the_geometry_is_shown_and_turns(browser: Browser) -> None:
    browser.open(still=False)
    browser.predict("CCO ethanol")
    browser.until("document.getElementById('view').dataset.shown === 'yes'")
    browser.driver.switch_to.frame(browser.id("view"))
    try:
        grab = (
            "viewer.render(); const from = document.querySelector('canvas');"
            "const to = document.createElement('canvas'); to.width = 120; to.height = 90;"
            "const pen = to.getContext('2d'); pen.drawImage(from, 0, 0, 120, 90);"
            "return [...new Uint32Array(pen.getImageData(0, 0, 120, 90).data.buffer)]"
        )
        first = browser.js(grab)
        assert 300 < sum(pixel != 0 for pixel in first) < 120 * 90 * 0.8
        assert len(set(first)) > 100  # shades of carbon, oxygen and hydrogen
        browser.js("turn(false)")
        still = browser.js(grab)
        assert browser.js(grab) == still
        browser.js("document.getElementById('view').focus()")
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_UP, "+"):
            browser.driver.switch_to.active_element.send_keys(key)
            assert browser.js(grab) != still
            still = browser.js(grab)
        browser.js("turn(true)")
        browser.until(
            "JSON.stringify((() => {" + grab + "})()) !== arguments[0]", json.dumps(still)
        )
        label = browser.js("return document.getElementById('view').getAttribute('aria-label')")
        assert label == "Geometry of ethanol"
    finally:
        browser.driver.switch_to.default_content()


def test_an_xyz_text_keeps_its_geometry(browser: Browser, url: str) -> None:
    browser.open()
    browser.predict(served.WATER)
    assert browser.text("card-name") == "water"
    result = answer(url, {"xyz": served.WATER})["results"][0]
    assert same(browser.values()["a"][0], result["values"]["a"])
    assert result["warnings"] == []
    assert browser.text("doubts") == "Not compared with the molecules it was trained on"
    browser.js("document.getElementById('geometry').value = 'approximate'")
    browser.id("predict").click()
    browser.until("document.getElementById('doubts').textContent.includes('approximate')")


def test_smiles_and_an_xyz_behind_them_are_both_read(browser: Browser) -> None:
    browser.open()
    browser.predict(f"CCO ethanol\nC methane\n\n{served.WATER}")
    browser.done()
    assert [row[1] for row in browser.table()] == ["ethanol", "methane", "water"]
    assert browser.text("many-title") == "3 molecules"


def test_files_before_a_bad_one_are_listed(browser: Browser, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.smi", tmp_path / "none.csv"
    good.write_text("CCO ethanol\n")
    bad.write_text("name,mass\nwater,18\n")
    browser.open()
    browser.id("file").send_keys(f"{good}\n{bad}")
    browser.until("document.getElementById('message').textContent.includes('column named smiles')")
    assert "good.smi: 1 molecule" in browser.text("files")


def test_a_bad_smiles_has_its_error(browser: Browser) -> None:
    browser.open()
    browser.predict("C1CC broken")
    assert "unclosed ring" in browser.text("card-error")
    assert "invalid_smiles" not in browser.text("card-error")
    assert browser.values() == {}
    assert not browser.id("space").is_displayed()


def test_nothing_typed_nothing_asked(browser: Browser) -> None:
    browser.open()
    browser.id("predict").click()
    assert "at least one molecule" in browser.text("message")
    assert browser.driver.switch_to.active_element == browser.id("text")


def test_many_molecules_are_a_table(browser: Browser, url: str) -> None:
    browser.open()
    browser.predict("\n".join(MANY))  # more than one request: the server takes three at a time
    rows = browser.table()
    assert [row[1] for row in rows] == [line.partition(" ")[2] for line in MANY]
    assert "unclosed ring" in rows[1][2]
    assert browser.text("many-title") == "10 molecules, 3 with an error"
    result = answer(url, {"smiles": "c1ccccc1"})["results"][0]
    shown = ["mu", "alpha", "homo", "lumo", "gap", "u0_atom"]
    for name, cell in zip(shown, rows[2][2:8], strict=True):
        assert same(cell, result["values"][name])
    browser.until("document.querySelectorAll('#results img[src]').length === 8")


def test_a_row_opens_its_card(browser: Browser) -> None:
    browser.open()
    browser.predict("\n".join(MANY))
    button = browser.driver.find_elements(By.CSS_SELECTOR, "#results tbody button")[2]
    button.send_keys(Keys.ENTER)
    assert browser.text("card-name") == "benzene"
    assert browser.js("return document.getElementById('card').matches(':modal')")
    assert len(browser.values()) == len(TARGETS)
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until("!document.getElementById('card').open")
    assert browser.driver.switch_to.active_element == button


def test_columns_are_sorted_and_chosen(browser: Browser) -> None:
    browser.open()
    browser.predict("\n".join(MANY))
    head = browser.driver.find_elements(By.CSS_SELECTOR, "#results thead button")
    next(item for item in head if item.text.startswith("\u03b1")).click()
    rows = browser.table()
    numbers = [float(row[3]) for row in rows[:7]]
    assert numbers == sorted(numbers)
    assert [len(row) for row in rows[7:]] == [3, 3, 3]  # errors last
    assert browser.js(
        "return document.querySelector('#results [aria-sort=ascending]').textContent"
    ).startswith("\u03b1")
    browser.driver.find_element(By.CSS_SELECTOR, "#columns summary").click()
    browser.driver.find_element(By.CSS_SELECTOR, "#choices input[name=zpve]").click()
    browser.driver.find_element(By.CSS_SELECTOR, "#choices input[name=mu]").click()
    shown = browser.js(
        "return [...document.querySelectorAll('#results tbody tr:first-child td[data-target]')]"
        ".map((cell) => cell.dataset.target)"
    )
    assert shown == ["alpha", "homo", "lumo", "gap", "zpve", "u0_atom"]


def test_the_csv_holds_what_the_table_shows(browser: Browser, url: str) -> None:
    browser.open()
    browser.predict("\n".join(MANY))
    text = browser.download("csv-many")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    names = [line.partition(" ")[2] for line in MANY]
    assert [row["name"] for row in rows] == [*names[:-1], "'-fluoride"]
    assert rows[6]["input"] == "'=HYPERLINK(1)"  # no formula in a spreadsheet
    assert rows[8]["name"] == 'acet"aldehyde, pure'
    # Asked together, as the page asks: alone, an average over conformers may end in another bit.
    first = [{"smiles": line.partition(" ")[0]} for line in MANY[:AT_ONCE]]
    whole = answer(url, *first)["results"][0]
    for item in PROPERTIES:
        assert float(rows[0][f"{item.name} ({item.unit})"]) == whole["values"][item.name]
    assert rows[0]["warnings"] == "; ".join(whole["warnings"])
    assert whole["domain"]["inside"] is None  # this model has nothing to compare with
    assert (rows[0]["in_domain"], rows[0]["geometry"]) == ("", "smiles")
    assert (rows[1]["error_code"], rows[1]["mu (D)"]) == ("invalid_smiles", "")
    assert (rows[1]["model"], rows[1]["version"]) == ("qm9flow", "1")
    for row, cells in zip(rows, browser.table(), strict=True):
        if not row["error_code"]:
            assert same(cells[4], float(row["homo (eV)"]))
        else:
            assert row["error"] in cells


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("two.smi", "CCO ethanol\nC methane\n", ["ethanol", "methane"]),
        ("a.csv", 'Name,SMILES\n"propane, plain",CCC\nwater,O\n', ["propane, plain", "water"]),
        ("b.csv", "smiles;id\nO;7\nN;8\n", ["7", "8"]),
        ("t.tsv", "\nid\tsmiles\n7\tO\n8\tN\n", ["7", "8"]),
        ("c.xyz", served.WATER * 2, ["water", "water"]),
        ("q.xyz", QM9_HYDROGEN * 2, ["gdb 1", "gdb 1"]),
        ("d.sdf", f"{MOL_BLOCK}$$$$\n{MOL_BLOCK}$$$$\n", ["hydrogen", "hydrogen"]),
    ],
)
def test_a_file_is_dropped(browser: Browser, name: str, text: str, names: list[str]) -> None:
    browser.open()
    browser.js(
        "const data = new DataTransfer(); data.items.add(new File([arguments[1]], arguments[0]));"
        "for (const kind of ['dragenter', 'dragover', 'drop']) document.body.dispatchEvent("
        "new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }))",
        name,
        text,
    )
    browser.done()
    assert [row[1] for row in browser.table()] == names
    assert f"{name}: 2 molecules" in browser.text("files")
    assert "error" not in browser.text("many-title")
    assert not browser.id("drop").is_displayed()


def test_a_file_is_chosen_and_left_out_again(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "one.mol"
    file.write_text(MOL_BLOCK)
    browser.open()
    browser.id("file").send_keys(str(file))
    browser.done()
    assert browser.text("card-name") == "hydrogen"
    assert browser.text("formula") == "H2"
    assert browser.values()["a"][0] == "\u2013"  # a linear molecule has no A
    browser.driver.find_element(By.CSS_SELECTOR, "#files button").click()
    assert not browser.id("files").is_displayed()


def test_a_table_without_smiles_is_refused(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "none.csv"
    file.write_text("name,mass\nwater,18\n")
    browser.open()
    browser.id("file").send_keys(str(file))
    browser.until("document.getElementById('message').textContent.includes('column named smiles')")


def test_a_long_run_can_be_stopped(browser: Browser) -> None:
    browser.open()
    lines = "\n".join("C" * (1 + i % 8) + f" number {i}" for i in range(400))
    browser.js(
        "document.getElementById('text').value = arguments[0];"
        "document.getElementById('ask').requestSubmit()",
        lines,
    )
    browser.until("document.getElementById('bar').value > 0")
    assert "of 400" in browser.text("progress-text")
    browser.id("stop").click()
    browser.until("document.getElementById('said').textContent.startsWith('Stopped')")
    assert not browser.id("stop").is_displayed()
    done = int(browser.text("many-title").partition(" of ")[0])
    assert 0 < done < 400
    assert len(list(csv.reader(io.StringIO(browser.download("csv-many"))))) == done + 1


@pytest.mark.parametrize("text", ["CC(=O)OC a name that is long, to be broken", "\n".join(MANY)])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_width_scrolls_sideways(browser: Browser, width: int, text: str) -> None:
    browser.open(width, 844)
    browser.predict(text)
    assert browser.js("return document.documentElement.scrollWidth") <= width
    if "\n" in text:
        browser.js("document.querySelector('#results tbody tr').click()")
        assert browser.js("return document.getElementById('card').scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_errors_in_the_table_are_read_without_scrolling(browser: Browser, width: int) -> None:
    browser.open(width, 844)
    browser.predict("\n".join(MANY))
    edges = browser.js(
        "const range = document.createRange();"
        "return [...document.querySelectorAll('#results td.bad')].map((cell) => {"
        " range.selectNodeContents(cell); return range.getBoundingClientRect().right; })"
    )
    assert len(edges) == 3
    visible = "return document.querySelector('.scroll').getBoundingClientRect().right"
    assert max(edges) <= browser.js(visible)


def test_text_from_outside_stays_text(browser: Browser) -> None:
    browser.open()
    evil = "<img src=x onerror=alert(1)>"
    browser.predict(f"CCO {evil}\nC<b>C {evil}")
    assert [row[1] for row in browser.table()] == [evil, evil]
    assert browser.js("return document.querySelectorAll('#results tbody b').length") == 0
    browser.js("document.querySelector('#results tbody tr').click()")
    assert browser.text("card-name") == evil


def test_without_webgl_all_else_is_there(url: str, tmp_path: Path) -> None:
    with opened(url, tmp_path, "--disable-gpu", "--disable-3d-apis") as browser:
        browser.open()
        browser.predict("CCO ethanol")
        browser.until("document.getElementById('no-view').textContent.includes('no WebGL')")
        assert len(browser.values()) == len(TARGETS)


def test_a_viewer_that_loads_late_is_shown(browser: Browser) -> None:
    browser.open()
    browser.predict("CCO ethanol")
    browser.until("document.getElementById('view').dataset.shown === 'yes'")
    hear = (
        "window.dispatchEvent(new MessageEvent('message', {data: arguments[0],"
        "source: document.getElementById('view').contentWindow}))"
    )
    browser.js(hear, {"state": "failed", "why": "it has not loaded yet"})
    assert not browser.id("view").is_displayed()
    assert browser.text("no-view") == "No 3D view: it has not loaded yet."
    browser.js(hear, {"state": "ready"})
    assert browser.id("view").is_displayed()
    assert not browser.id("no-view").is_displayed()


def test_nothing_is_asked_of_anybody_else(url: str, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    with opened(url, tmp_path / "own", f"--log-net-log={log}") as browser:
        browser.open()
        browser.predict("\n".join(MANY))
        browser.predict("CCO ethanol")
        browser.until("document.getElementById('view').dataset.shown === 'yes'")
        assert browser.complaints() == []
    asked = requested(log)
    assert {url + path for path in ("predict", "draw", "model", "page/3dmol.js")} <= asked
    assert [one for one in asked if not one.startswith((url, f"blob:{url}"))] == []


def test_figures_are_as_sharp_as_they_mean(browser: Browser) -> None:
    browser.open()
    gap = {"name": "gap", "chemical_accuracy": 0.043}
    constant = {"name": "a", "chemical_accuracy": None}
    value = "m.valueText(a[0], a[1], a[2])"
    assert browser.module("numbers.js", value, 9.30812, gap, None) == "9.308"
    assert browser.module("numbers.js", value, 9.30812, gap, [8.9, 9.7]) == "9.31"
    assert browser.module("numbers.js", value, -0.0001, gap, None) == "0.000"
    assert browser.module("numbers.js", value, 619868.1, constant, None) == "619868"
    assert browser.module("numbers.js", value, None, constant, None) == "\u2013"
    ends = browser.module(
        "numbers.js", "m.intervalText(a[0], a[1], a[2])", [8.9, 9.7], 9.30812, gap
    )
    assert ends == "8.90 to 9.70"


def test_intervals_are_shown_and_saved_where_the_model_has_them(browser: Browser, url: str) -> None:
    browser.open()
    facts = json.load(urllib.request.urlopen(url + "model", timeout=60))
    whole = answer(url, {"smiles": "CCO"})
    result = whole["results"][0]
    result["intervals"] = {n: [v - 0.4, v + 0.4] for n, v in result["values"].items()}
    result["geometry"]["numbers"] = [8, 1, 1]
    row = {"name": "x", "text": "CCO", "result": result, "level": 0.9, "model": whole["model"]}
    browser.module("card.js", "m.fillCard(a[0], a[1])", row, facts["targets"])
    table = browser.text("values")
    gap = result["values"]["gap"]
    assert "90% interval" in table
    assert f"{gap - 0.4:.2f} to {gap + 0.4:.2f}" in table
    text = browser.module("csv.js", "m.csvText([a[0]], a[1])", row, facts["targets"])
    (line,) = csv.DictReader(io.StringIO(text, newline=""))
    assert float(line["gap_low (eV)"]) == gap - 0.4
    assert float(line["gap_high (eV)"]) == gap + 0.4


LARGE = "CC(C)(C)c1ccc(O)cc1C(C)(C)C"
"""Outside of the domain, with intervals as wide as the page has to show."""


def overflowing(browser: Browser, inside: str) -> list[str]:
    """Texts of table cells that end beyond an element, or are wider than their cell."""
    found: list[str] = browser.js(
        "const edge = document.querySelector(arguments[0]).getBoundingClientRect().right;"
        "return [...document.querySelectorAll('#values th, #values td')].filter((cell) =>"
        " cell.getBoundingClientRect().right > edge + 1 || cell.scrollWidth > cell.clientWidth + 1)"
        ".map((cell) => cell.textContent)",
        inside,
    )
    return found


@pytest.mark.parametrize("width", [360, 390, 768, 900, 1024, 1280])
def test_intervals_and_units_are_within_every_width(
    pretrained_browser: Browser, width: int
) -> None:
    browser = pretrained_browser
    browser.open(width, 844)
    browser.predict(LARGE)
    assert "90% interval" in browser.text("values")
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert overflowing(browser, "#card") == []
    browser.predict(f"{LARGE}\nCCO ethanol")
    browser.js("document.querySelector('#results tbody tr').click()")
    assert browser.js("return document.getElementById('card').scrollWidth") <= width
    assert overflowing(browser, "#card") == []


def test_a_smiles_without_a_name_is_not_taken_for_one(browser: Browser) -> None:
    browser.open()
    browser.predict("CC(=O)N")
    assert (browser.text("card-name"), browser.text("formula")) == ("C2H5NO", "")
    assert browser.text("source") == "CC(=O)N"
    browser.until("document.getElementById('drawing').alt === 'Structure of CC(=O)N'")
    browser.predict("C1CC")
    assert (browser.text("card-name"), browser.text("source")) == ("No prediction", "C1CC")
    browser.predict("CC(=O)N\nCCO ethanol")
    weights = browser.js(
        "return [...document.querySelectorAll('#results tbody .link')]"
        ".map((name) => [name.textContent, Number(getComputedStyle(name).fontWeight)])"
    )
    assert weights == [["CC(=O)N", 400], ["ethanol", 600]]
    rows = list(csv.DictReader(io.StringIO(browser.download("csv-many"), newline="")))
    assert [(row["name"], row["input"]) for row in rows] == [("", "CC(=O)N"), ("ethanol", "CCO")]


def test_a_long_smiles_takes_three_lines_of_the_table(browser: Browser) -> None:
    browser.open(390, 844)
    browser.predict("C" * 90 + "\nCCO ethanol")
    height = "return document.querySelector('#results tbody tr').getBoundingClientRect().height"
    assert browser.js(height) < 150


def test_the_table_asks_which_stereoisomer_is_meant(browser: Browser) -> None:
    browser.open()
    browser.predict("CC=CC either\nC/C=C/C one\nCCO none")
    notes = browser.driver.find_elements(By.CSS_SELECTOR, "#results td.notes")
    assert [note.text for note in notes] == ["which stereoisomer?", "", ""]
    assert "stereoisomers" in (notes[0].get_attribute("title") or "")


def test_on_a_phone_a_drawing_has_no_column_and_names_stay(pretrained_browser: Browser) -> None:
    browser = pretrained_browser
    browser.open(390, 844)
    browser.predict(f"CCO ethanol\n{LARGE} large")
    place = "document.querySelector('#results tbody tr:last-child th').getBoundingClientRect()"
    assert browser.js(f"return {place}.right") < 390 * 0.5
    assert browser.js("return document.querySelectorAll('#results tbody tr:last-child td').length")
    note = browser.driver.find_elements(By.CSS_SELECTOR, "#results .note")[1]
    assert note.is_displayed()
    assert note.text == "unlike the training molecules"
    browser.js("document.querySelector('.scroll').scrollLeft = 200")
    assert browser.js(f"return {place}.left >= 0 && {place}.left < 40")
    assert browser.js(
        "const head = document.querySelectorAll('#results thead th')[1];"
        "const box = head.getBoundingClientRect(), seen = [0.2, 0.5, 0.8].map((share) =>"
        " document.elementFromPoint(box.left + share * box.width, (box.top + box.bottom) / 2));"
        "return seen.every((element) => head.contains(element))"
    )


def test_it_says_what_the_small_figures_and_the_score_are(pretrained_browser: Browser) -> None:
    browser = pretrained_browser
    browser.open()
    browser.predict(f"CCO ethanol\n{LARGE} large")
    assert "small figures are 90% intervals" in browser.text("many-hint")
    rows = browser.driver.find_elements(By.CSS_SELECTOR, "#results tbody button")
    for row, share, is_promised in zip(rows, (r"\d\d", "fewer than 1"), (True, False), strict=True):
        row.click()
        doubts = browser.text("doubts")
        said = (
            r"Likeliest of \d+ force-field conformers, refined by the model; A, B and C are its own"
        )
        assert re.search(said, browser.text("space-text"))
        assert re.search(f"Of 100 molecules like QM9's, {share} would be as far", doubts)
        assert ("measured for molecules like QM9's alone" in doubts) != is_promised
        browser.id("close").click()


@pytest.mark.parametrize("smiles", [LARGE, "CCCCCCCCC", "O", "CC(=O)OC"])
def test_the_geometry_is_shown_whole_and_large(pretrained_browser: Browser, smiles: str) -> None:
    browser = pretrained_browser
    browser.open()
    browser.predict(smiles)
    browser.until("document.getElementById('view').dataset.shown === 'yes'")
    browser.driver.switch_to.frame(browser.id("view"))
    try:
        left, right, top, bottom = browser.js(
            "viewer.render(); const from = document.querySelector('canvas');"
            "const to = document.createElement('canvas'); to.width = 200; to.height = 120;"
            "const pen = to.getContext('2d'); pen.drawImage(from, 0, 0, 200, 120);"
            "const seen = [...new Uint32Array(pen.getImageData(0, 0, 200, 120).data.buffer)]"
            ".flatMap((pixel, i) => pixel ? [i] : []);"
            "const x = seen.map((i) => i % 200), y = seen.map((i) => Math.floor(i / 200));"
            "return [Math.min(...x), 199 - Math.max(...x), Math.min(...y), 119 - Math.max(...y)]"
        )
    finally:
        browser.driver.switch_to.default_content()
    assert min(left, right, top, bottom) > 0, (left, right, top, bottom)
    assert min(left, top) < 45, (left, right, top, bottom)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_card_can_be_closed_wherever_it_is_scrolled_to(browser: Browser, width: int) -> None:
    browser.open(width, 500)
    browser.predict("\n".join(MANY))
    browser.js("document.querySelector('#results tbody tr').click()")
    browser.js("document.getElementById('card').scrollTop = 300")
    assert browser.js("return document.getElementById('card').scrollTop") > 100
    assert browser.js(
        "const box = document.getElementById('close').getBoundingClientRect();"
        "const x = (box.left + box.right) / 2, y = (box.top + box.bottom) / 2;"
        "return document.elementFromPoint(x, y) === document.getElementById('close')"
    )


def test_choices_of_geometry_are_read_whole_on_a_phone(browser: Browser) -> None:
    browser.open(360, 844)
    browser.js(
        "document.getElementById('text').value = arguments[0];"
        "document.getElementById('text').dispatchEvent(new Event('input'))",
        served.WATER,
    )
    free = browser.js(
        "const field = document.getElementById('geometry'), style = getComputedStyle(field);"
        "const pen = document.createElement('canvas').getContext('2d'); pen.font = style.font;"
        "const arrow = 20, widest = Math.max(...[...field.options]"
        ".map((option) => pen.measureText(option.text).width));"
        "return field.clientWidth - parseFloat(style.paddingLeft)"
        " - parseFloat(style.paddingRight) - arrow - widest"
    )
    assert free >= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_fields_stand_out(browser: Browser, scheme: str) -> None:
    browser.open()
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colour = "return getComputedStyle(document.getElementById(arguments[0]))[arguments[1]]"

    def luminance(element: str, what: str) -> float:
        # WCAG 2.2, relative luminance and contrast ratio.
        shares = [int(n) / 255 for n in re.findall(r"\d+", browser.js(colour, element, what))[:3]]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05

    def contrast(*values: float) -> float:
        return max(values) / min(values)

    button = luminance("predict", "color"), luminance("predict", "backgroundColor")
    assert contrast(*button) >= 4.5
    field = luminance("text", "borderTopColor"), luminance("ask", "backgroundColor")
    assert contrast(*field) >= 3


class Doorkeeper(BaseHTTPRequestHandler):
    """Passes on what carries the key, and the page's files; refuses the rest as a proxy does."""

    inner = ""

    def do_GET(self) -> None:
        self.pass_on(None)

    def do_POST(self) -> None:
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def pass_on(self, body: bytes | None) -> None:
        is_open = self.path == "/" or self.path.startswith("/page/")
        if not is_open and self.headers["Authorization"] != f"Bearer {KEY}":
            self.say(401, "text/plain", b"who are you?")
            return
        request = urllib.request.Request(self.inner + self.path[1:], body)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as response:
            self.say(response.status, response.headers["Content-Type"], response.read())

    def say(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def test_a_key_is_asked_for_and_kept_in_the_tab(
    browser: Browser, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Doorkeeper, "inner", url)
    door = ThreadingHTTPServer(("127.0.0.1", 0), Doorkeeper)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    monkeypatch.setattr(browser, "url", f"http://127.0.0.1:{door.server_port}/")
    try:
        browser.open()
        browser.until("!document.getElementById('key-form').hidden")
        browser.id("text").send_keys("CCO")
        browser.id("predict").click()
        browser.id("stop").click()
        browser.until("document.getElementById('stop').hidden")
        assert browser.id("key-form").is_displayed()  # who stopped may go on, with a key
        for key in ("wrong", KEY):
            browser.id("key").send_keys(key, Keys.ENTER)
            browser.until("document.getElementById('key').value === ''")
            if key == "wrong":
                browser.until("document.getElementById('message').textContent.includes('not take')")
        browser.until("document.getElementById('model').textContent.includes('version 1')")
        assert not browser.id("key-form").is_displayed()
        browser.predict("CCO ethanol")
        assert len(browser.values()) == len(TARGETS)
        assert browser.js("return Object.values(sessionStorage)") == [KEY]
        assert browser.js("return localStorage.length") == 0
        refusals = browser.complaints()
        assert refusals
        assert all("401" in line for line in refusals)
    finally:
        door.shutdown()
        door.server_close()
