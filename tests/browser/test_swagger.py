"""Swagger UI in a real Chromium: what people who explore the service see there, and what they can do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.api.live import SEEDS, Service

pytestmark = pytest.mark.browser

PATIENCE_SECONDS = 30.0
METHODS = ("get", "post", "put", "patch", "delete")


def wait(browser: Chrome, css: str, *, text: str = "") -> WebElement:
    """The first element that matches and holds the text, once there is one."""

    def find(_: Chrome) -> WebElement | None:
        found = browser.find_elements(By.CSS_SELECTOR, css)
        return next((each for each in found if text in each.text), None)

    told = f"no {css} with {text!r}"
    return WebDriverWait(browser, PATIENCE_SECONDS).until(find, told)  # type: ignore[return-value]  # never None


def open_page(browser: Chrome, service: Service) -> None:
    browser.get(f"{service.url}/docs")
    wait(browser, ".opblock")


def unfold(browser: Chrome, call: str) -> str:
    """Open an operation such as "POST /generate"; the CSS selector of its block."""
    method, path = call.split()
    for place, block in enumerate(browser.find_elements(By.CSS_SELECTOR, ".opblock"), start=1):
        summary = block.find_element(By.CSS_SELECTOR, ".opblock-summary")
        shown = summary.find_element(By.CSS_SELECTOR, ".opblock-summary-path").get_attribute("data-path")
        if (summary.find_element(By.CSS_SELECTOR, ".opblock-summary-method").text, shown) == (method, path):
            summary.find_element(By.CSS_SELECTOR, "button.opblock-summary-control").click()
            browser.execute_script("arguments[0].setAttribute('data-test', arguments[1])", block, str(place))
            own = f".opblock[data-test='{place}']"
            wait(browser, f"{own} .execute")
            return own
    raise AssertionError(f"the page shows no {call}")


def execute(browser: Chrome, own: str) -> tuple[int, str]:
    """Press the button; status and body as the page shows them."""
    button = browser.find_element(By.CSS_SELECTOR, f"{own} .execute")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    row = wait(browser, f"{own} .live-responses-table .response")
    status = row.find_element(By.CSS_SELECTOR, ".response-col_status").text.split()[0]
    return int(status), row.find_element(By.CSS_SELECTOR, ".highlight-code").text


def test_every_call_is_shown_and_nothing_is_fetched_from_elsewhere(browser: Chrome, service: Service) -> None:
    open_page(browser, service)
    paths = service.http.get("/openapi.json").json()["paths"].values()
    calls = sum(method in METHODS for path in paths for method in path)
    assert len(browser.find_elements(By.CSS_SELECTOR, ".opblock")) == calls
    fetched = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    assert fetched
    assert all(name.startswith((service.url, "data:")) for name in fetched)
    told = browser.get_log("browser")  # type: ignore[no-untyped-call]  # Chromium's console
    assert [entry for entry in told if entry["level"] == "SEVERE"] == []


def test_the_worked_examples_can_be_executed_as_they_stand(browser: Chrome, service: Service) -> None:
    open_page(browser, service)
    status, body = execute(browser, unfold(browser, "POST /specialize"))
    assert status == 202
    assert '"status": "queued"' in body
    assert service.num_jobs() == 1


def test_an_answer_says_who_gave_it(browser: Chrome, service: Service) -> None:
    adapter = service.add_expert()
    open_page(browser, service)
    own = unfold(browser, "GET /domains/{name}")
    browser.find_element(By.CSS_SELECTOR, f"{own} tr[data-param-name='name'] input").send_keys("finance")
    status, body = execute(browser, own)
    assert (status, adapter.id in body) == (200, True)
    own = unfold(browser, "POST /generate")
    domain = f"{own} tr[data-param-name='domain']"
    browser.find_element(By.CSS_SELECTOR, f"{domain} button.json-schema-form-item-add").click()
    assert wait(browser, f"{domain} input").get_attribute("value") == "finance"  # it was "string", and nobody is that
    status, body = execute(browser, own)
    assert status == 200
    assert '"adapter_name": "finance@v1"' in body
    shown = browser.find_element(By.CSS_SELECTOR, f"{own} .live-responses-table").text
    assert "x-selfspec-adapter: finance@v1" in shown


def test_a_file_of_seeds_is_chosen_and_sent(browser: Chrome, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    file.write_text("".join(f"{json.dumps(seed)}\n" for seed in SEEDS), encoding="utf-8")
    open_page(browser, service)
    own = unfold(browser, "POST /specialize")
    Select(browser.find_element(By.CSS_SELECTOR, f"{own} select.content-type")).select_by_value("multipart/form-data")
    wait(browser, f"{own} .parameters[data-property-name='seeds'] input[type='file']").send_keys(str(file))
    status, body = execute(browser, own)
    assert status == 202, body
    assert f'"num_seeds": {len(SEEDS)}' in body
