"""A real headless Chromium for tests of the page, driven by Selenium."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE_S = 120.0


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A driver; skips the test, with the reason, where Chromium or its driver is missing."""
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in found.items():
        if path is None:
            pytest.skip(f"{name} is not installed (Debian packages chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(found["chromium"])
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(found["chromedriver"])))
    try:
        yield driver
    finally:
        driver.quit()


def until(driver: Any, look: Callable[[], Any], what: str) -> Any:
    """What `look` finds, as soon as it finds something."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (NoSuchElementException, StaleElementReferenceException):
            pass
        time.sleep(0.1)
    raise AssertionError(f"{what}; the page says: {text(driver)[:800]}; the console: {errors(driver)}")


def one(driver: Any, selector: str) -> Any:
    """The first element of a selector, as soon as it is there."""
    return until(driver, lambda: next(iter(driver.find_elements("css selector", selector)), None), f"no {selector}")


def text(driver: Any) -> str:
    """The words of the page's content."""
    return str(driver.find_element("css selector", "main").text)


def says(driver: Any, *words: str) -> str:
    """The page's words, as soon as all of these are among them."""
    until(driver, lambda: all(word in text(driver) for word in words), f"{words} are not on the page")
    return text(driver)


def errors(driver: Any) -> list[str]:
    """What the console complained of since it was asked last: scripts, policies, failed requests."""
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]


def appearance(driver: Any, scheme: str) -> None:
    """Light or dark, as the system would ask for it."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
