"""A Chromium without a window, and a service for it to look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.common import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.api.live import Service, serve

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1400,1200")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    """Debian's: ``apt-get install chromium-driver``."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = ChromeOptions()
    options.binary_location = program
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        chrome = Chrome(options=options, service=ChromeService(driver))
    except WebDriverException as error:
        pytest.skip(f"chromium does not start here: {error.msg}")
    with chrome:
        yield chrome


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A fresh service."""
    with serve(tmp_path / "var") as running:
        yield running
