"""A walk through the page on a real home: what a person does first, asserted, with a picture of each view.

`python -m tests.system.page_walk http://127.0.0.1:8080 docs/images` makes the pictures of the docs.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.model.serve import browser

SIZE = (1180, 860)


def walk(url: str, folder: Path, user: str | None = None, query: str = "") -> None:
    """Timeline of a user (of the one with most events, if none is named), a ranked list with its reasons, health."""
    with browser.chromium(*SIZE) as driver:
        driver.get(f"{url}/inspect#/user/{user or ''}")
        if user is None:
            user = browser.one(driver, "td a").text
            driver.find_element("css selector", "td a").click()
        browser.says(driver, "What is visible, by name", "since the last one", "Online and history hold the same")
        browser.one(driver, ".timeline canvas")
        browser.says(driver, "when (UTC)")
        _picture(driver, folder / "inspect-user.png")

        driver.get(f"{url}/inspect#/score/{user}")
        browser.until(driver, lambda: driver.find_element("name", "time").get_property("value"), "no time is proposed")
        driver.find_element("name", "query").send_keys(query)
        for words in ("match the query", "popular"):
            if query or words == "popular":
                before = driver.find_element("name", "candidates").get_property("value")
                _button(driver, words).click()
                browser.until(driver, lambda b=before: _candidates(driver) != b, "no candidates")  # type: ignore[misc]
        driver.find_element("css selector", "button.main").click()
        said = browser.says(driver, "Ranked")
        assert "rank item" in said
        driver.find_element("css selector", "button.link").click()
        browser.says(driver, "under exact search", "behaviours were retrieved", "by modality")
        browser.one(driver, "[aria-label^='Attention to'] canvas")
        driver.execute_script("document.querySelectorAll('h3')[1].scrollIntoView()")
        _picture(driver, folder / "inspect-score.png")

        driver.get(f"{url}/inspect#/health")
        said = browser.says(driver, "Promotions", "promoted", "passed", "Dead letters", "evenness")
        assert "No losses are kept" not in said
        _button(driver, "Compare").click()
        browser.until(driver, lambda: "They agree" in driver.find_element("id", "parity").text, "online and history differ")
        browser.appearance(driver, "dark")
        _picture(driver, folder / "inspect-health.png")
        assert browser.errors(driver) == []


def _candidates(driver: Any) -> str:
    return str(driver.find_element("name", "candidates").get_property("value"))


def _button(driver: Any, words: str) -> Any:
    return next(b for b in driver.find_elements("css selector", "button") if words in b.text)


def _picture(driver: Any, file: Path) -> None:
    """A small PNG: 128 colours are enough for a page."""
    from PIL import Image

    browser.until(
        driver, lambda: driver.execute_script("return document.readyState") == "complete", "the page does not load"
    )
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "page.png"
        driver.save_screenshot(str(raw))
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.open(raw).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    walk(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
