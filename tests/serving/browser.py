"""Chromium without a screen, as the tests of the page drive it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 90
"""A busy machine draws WebGL without a graphics card."""

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # root may not have one
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


_NOBODY = "not an origin"
"""Who asks for what no page asks for: the browser itself, and whoever types an address."""


class Browser:
    """One tab, and what tests ask of it."""

    def __init__(self, driver: webdriver.Chrome, url: str, downloads: Path) -> None:
        self.driver = driver
        self.url = url
        self.downloads = downloads

    def open(self, width: int = 1280, height: int = 900, *, still: bool = True) -> None:
        """The page anew, with the session's memory emptied."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else ""}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [motion]})
        self.driver.get(self.url)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(self.url)

    def id(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        """Text of an element, whether it is to be seen or not."""
        text: str = self.js("return document.getElementById(arguments[0]).textContent", name)
        return text.strip()

    def js(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, code: str, *arguments: object) -> Any:
        """Wait for an expression to be true."""
        return WebDriverWait(self.driver, PATIENCE_S, 0.1).until(
            lambda driver: driver.execute_script(f"return {code}", *arguments), code
        )

    def module(self, file: str, expression: str, *arguments: object) -> Any:
        """What a function of one of the page's modules (`m`) gives for arguments (`a`)."""
        return self.driver.execute_async_script(
            f"const a = arguments, done = a[a.length - 1];"
            f"import('./page/{file}').then((m) => done({expression}),"
            " (error) => done(String(error)))",
            *arguments,
        )

    def predict(self, text: str) -> None:
        """Type molecules, press the button, wait for the end."""
        self.js("document.getElementById('said').textContent = ''")
        field = self.id("text")
        field.clear()
        field.send_keys(text)
        self.id("predict").click()
        self.done()

    def done(self) -> None:
        """Wait until it is said that all is done."""
        self.until("document.getElementById('said').textContent.startsWith('Done')")

    def values(self) -> dict[str, tuple[str, str]]:
        """Value and unit of each target on the card, as they stand there."""
        found: dict[str, tuple[str, str]] = self.js(
            "return Object.fromEntries([...document.querySelectorAll('#values tr[data-target]')]"
            ".map((row) => [row.dataset.target, [row.querySelector('.value').textContent,"
            " row.querySelector('.unit').textContent]]))"
        )
        return found

    def table(self) -> list[list[str]]:
        """Cells of the table of many, without its head; of the molecule's its name alone."""
        found: list[list[str]] = self.js(
            "return [...document.querySelectorAll('#results tbody tr')]"
            ".map((row) => [...row.cells]"
            ".map((cell) => (cell.querySelector('.link') ?? cell).textContent))"
        )
        return found

    def download(self, button: str) -> str:
        """What a button gives as a file."""
        for old in self.downloads.iterdir():
            old.unlink()
        self.js("document.getElementById(arguments[0]).click()", button)
        WebDriverWait(self.driver, PATIENCE_S, 0.1).until(
            lambda _: [path for path in self.downloads.iterdir() if path.suffix == ".csv"]
        )
        (file,) = self.downloads.iterdir()
        return file.read_bytes().decode("utf-8")

    def complaints(self) -> list[str]:
        """What the console holds since the last call, but for refusals that a test provoked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def opened(url: str, folder: Path, *arguments: str) -> Iterator[Browser]:
    """A browser of its own.

    Args:
        url: Of the page.
        folder: For downloads and the browser's own files.
        arguments: More of Chromium's.

    Yields:
        The browser, with no page open.
    """
    chromium, driver_file = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver_file:
        pytest.skip("Chromium or its driver is not installed")
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder / 'profile'}", *arguments):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_file))
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield Browser(driver, url, downloads)
    finally:
        driver.quit()


def requested(net_log: Path) -> set[str]:
    """Addresses that pages asked for, frames and workers included, from Chromium's own log."""
    log = json.loads(net_log.read_text())
    kinds = log["constants"]["logEventTypes"]
    start = kinds["URL_REQUEST_START_JOB"]
    found = set()
    for event in log["events"]:
        said = event.get("params", {})
        if event["type"] == start and said.get("initiator", _NOBODY) != _NOBODY:
            found.add(said["url"])
    return found
