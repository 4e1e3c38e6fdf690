"""The inspect page: its routes, and the page itself in a real Chromium on a user with 100,000 events.

With SEMINAR_SCREENSHOTS=<folder> the browser test leaves its pictures there.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from cli.inspected import OUTSIDE
from cli.processes import free_port
from features.record import KIND_BROWSE, KIND_SEARCH, RECORD, entity_id, query_id
from features.settings import settings
from model.serve.http import create_app
from model.serve.inspect import HEADERS, PAGE
from model.serve.keys import Keys, create
from model.serve.service import Limits, Service
from tests.model.conftest import Trained

from . import browser

LONG = "user/with 100,000 <b>events</b>"
EVENTS, YEARS = 100_000, 3
END = 1_700_000_000_000


@dataclass
class Served:
    """A service on loopback over a home of its own."""

    url: str
    home: Path
    key: str | None = None

    def get(self, path: str, **parameters: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.get(f"{self.url}/inspect/v1/{path}", params=parameters, headers=headers, timeout=60)  # type: ignore[arg-type]


def long_history() -> np.ndarray:
    """Searches and browses over three years, the last ten in the last ten minutes."""
    rng = np.random.default_rng(0)
    records = np.zeros(EVENTS, RECORD)
    times = rng.integers(END - YEARS * 365 * 86_400_000, END - 86_400_000, EVENTS)
    times[:10] = END - np.arange(10) * 60_000
    records["time"], records["digest"] = np.sort(times), np.arange(EVENTS)
    searches = np.arange(EVENTS) % 4 == 0
    records["kind"] = np.where(searches, KIND_SEARCH, KIND_BROWSE)
    records["item"] = np.where(
        searches, 0, np.array([entity_id(f"milk-{i}") for i in range(3)], np.uint64)[rng.integers(0, 3, EVENTS)]
    )
    records["query"] = np.where(np.arange(EVENTS) % 2 == 0, query_id("milk"), 0)
    return records


@contextmanager
def serve(home: Path, keys: Path | None = None) -> Iterator[str]:
    service = Service(settings(), Limits(store=30.0, deadline=60.0))
    port = free_port()
    app = create_app(service, Keys(keys), outside=dict(OUTSIDE))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def copied(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the trained home with a promoted bundle, the long user and one dead letter."""
    from features import journal
    from features.online import Online
    from model.train.release import promote
    from streaming.deadletters import FileSink
    from streaming.events import Invalid, Message

    home = tmp_path_factory.mktemp("inspect") / "var"
    shutil.copytree(trained.home, home)
    config = home / "feature_store.yaml"
    config.write_text(config.read_text().replace(str(trained.home), str(home)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEMINAR_HOME", str(home))
        patch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        from features.repository import apply

        apply()
        Online().append({LONG: long_history()})
        promote(home, bundle=trained.bundle)
        for task, state in (("pin", "success"), ("build", "failed")):
            journal.note(home, dag="codebooks", run="r1", task=task, map_index=-1, attempt=1, state=state, begun=None,
                         seconds=1.0, error="<u>no</u> PSU" if state == "failed" else None)  # fmt: skip
        FileSink(home).send([(Message("t", 0, 7, None, b"{}", {}), Invalid("user_id", "<i>nobody</i>", "is missing"))])
        yield home


@pytest.fixture(scope="module")
def served(copied: Path) -> Iterator[Served]:
    with serve(copied) as url:
        yield Served(url, copied)


def test_a_timeline_has_every_behaviour(served: Served) -> None:
    found = served.get("timeline", user=LONG).json()
    assert found["length"] == EVENTS == len(found["time"]) == len(found["kind"])
    assert found["counts"] == {
        "searches": 25_000, "browses after a search": 25_000, "browses without a search": 50_000,
    }  # fmt: skip
    assert found["time"] == sorted(found["time"])
    assert found["last"] == END
    named = served.get("events", user=LONG, since=END - 600_000, until=END, limit=5).json()
    assert named["found"] == 10
    assert [row["time"] for row in named["events"]] == [END - i * 60_000 for i in range(5)]
    assert all(row["query"] == "milk" for row in named["events"] if row["kind"] == "search")


def test_users_items_and_agreement(served: Served) -> None:
    users = served.get("users").json()
    assert users["whole"]
    assert [one["events"] for one in users["users"]] == sorted((one["events"] for one in users["users"]), reverse=True)
    assert {one["user"] for one in served.get("users", begins="user-1").json()["users"]} == {
        one["user"] for one in users["users"] if one["user"].startswith("user-1")
    }
    items = served.get("items", words="MILK", limit=2).json()
    assert len(items["items"]) == 2 < items["found"] < items["of"]
    assert all("milk" in row["title"] and row["scored"] for row in items["items"])
    assert served.get("items", words="no such words").json()["items"] == []
    agreed = served.get("agreement", user=users["users"][0]["user"]).json()
    assert agreed["online"] == agreed["history"] == users["users"][0]["events"]
    assert (agreed["lag"], agreed["extra"]) == (0, 0)
    alone = served.get("agreement", user=LONG).json()
    assert alone == {"online": EVENTS, "history": 0, "lag": 0, "extra": EVENTS}


def test_health_says_what_is_there_and_what_is_away(served: Served, trained: Trained) -> None:
    found = served.get("health").json()
    assert found["service"]["model_version"] == trained.bundle == found["versions"]["bundles"]["current"]
    promotion = found["promotions"][0]
    assert promotion["bundle"] == trained.bundle
    assert promotion["metrics"]["gauc"] == pytest.approx(trained.metrics["methods"][0]["gauc"])
    assert found["codes"]["items"]["n"] > 0
    assert 0 < found["codes"]["items"]["used"] <= 1
    assert 0 <= found["codes"]["items"]["error"] < 1.5
    assert sum(found["codes"]["queries"]["by_use"]) == found["codes"]["queries"]["n"] * found["codes"]["queries"]["bytes"]
    assert found["letters"]["reasons"] == [{"field": "user_id", "reason": "is missing", "count": 1}]
    assert "none is named" in found["letters"]["missing"]
    (run,) = found["dags"]
    assert (run["dag"], run["state"], run["failed"]) == ("codebooks", "failed", ["build: <u>no</u> PSU"])
    assert "none is named" in found["stream"]["broker"]
    assert found["reports"]["release"] is None
    assert served.get("parity", sample=5).json()["users"] == 5


def test_a_part_that_is_away_does_not_take_the_others(served: Served) -> None:
    log = served.home / "bundles" / "promotions.jsonl"
    kept = log.read_text()
    log.write_text("{}\n")
    try:
        found = served.get("health").json()
    finally:
        log.write_text(kept)
    assert "away" in found["promotions"]
    assert found["versions"]["bundles"]["all"]


def test_refusals(served: Served) -> None:
    unknown = served.get("timeline", user="nobody")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["field"] == "user"
    assert served.get("timeline").status_code == 422
    assert served.get("items", limit=0).status_code == 422


def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    page = httpx.get(f"{served.url}/inspect")
    assert page.headers["Content-Security-Policy"] == HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    for file in PAGE.iterdir():
        if file.suffix in (".js", ".css", ".html"):
            assert httpx.get(f"{served.url}/inspect/{file.name}").is_success, file
            ours = file.read_text() if not file.name.startswith("uPlot") else ""
            assert "innerHTML" not in ours
            assert "http://" not in ours
            assert "https://" not in ours
    none = httpx.get(f"{served.url}/inspect/uPlot.LICENSE")
    assert (none.status_code, none.json()["error"]["value"]) == (404, "uPlot.LICENSE")
    assert httpx.get(f"{served.url}/inspect/..%2finspect.py").status_code == 404
    assert {"/inspect/v1/timeline", "/inspect/v1/health"} <= httpx.get(f"{served.url}/openapi.json").json()["paths"].keys()


@pytest.mark.timeout(900)
def test_data_need_the_scope_admin(copied: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    score, admin = create(file, "shop", ["score"]), create(file, "operator", ["admin", "score"])
    with serve(copied, file) as url:
        assert httpx.get(f"{url}/inspect").is_success
        unknown = Served(url, copied, "no-such-key").get("users")
        assert (unknown.status_code, unknown.json()["error"]["field"]) == (401, "Authorization")
        assert Served(url, copied).get("users").status_code == 401
        assert Served(url, copied, score).get("users").status_code == 403
        assert Served(url, copied, admin).get("users").is_success
        with browser.chromium() as driver:
            driver.get(f"{url}/inspect")
            field = browser.until(driver, lambda: driver.find_element("name", "key"), "no field for the key")
            browser.until(driver, field.is_displayed, "the key is not asked for")
            field.send_keys(admin)
            field.submit()
            browser.says(driver, "Users with most events")
            assert not field.is_displayed()


def picture(driver: object, name: str) -> None:
    if folder := os.environ.get("SEMINAR_SCREENSHOTS"):
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))  # type: ignore[attr-defined]


def drawn(driver: object, selector: str) -> int:
    """How many pixels of the chart below a selector have a colour."""
    script = """
      const canvas = document.querySelector(arguments[0] + " canvas"), all = canvas.getContext("2d");
      const pixels = all.getImageData(0, 0, canvas.width, canvas.height).data;
      let count = 0;
      for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) count++;
      return count;
    """
    return int(driver.execute_script(script, selector))  # type: ignore[attr-defined]


@pytest.mark.timeout(900)
def test_the_page_in_a_browser(served: Served, trained: Trained) -> None:
    with browser.chromium() as driver:
        driver.get(f"{served.url}/inspect")
        browser.says(driver, "Users with most events among all")
        field = driver.find_element("name", "user")
        field.send_keys(LONG)
        field.submit()
        browser.says(driver, "100,000", "25,000 searches", "The newest 100 of 100,000")
        browser.until(driver, lambda: drawn(driver, ".timeline") > 20_000, "the timeline is not drawn")
        assert driver.find_elements("css selector", "main b b") == [], "an id became markup"
        picture(driver, "user")

        chart = driver.find_element("css selector", ".timeline [tabindex]")
        for _ in range(3):
            chart.send_keys("+")
        browser.says(driver, "(140 days)")
        chart.send_keys("0")
        browser.says(driver, "The newest 100 of 100,000")
        next(b for b in driver.find_elements("css selector", "button") if b.text == "Last 10 minutes").click()
        browser.says(driver, "10 behaviours", "All 10.", "2023-11-14 22:13:20")
        assert drawn(driver, ".timeline") > 100

        browser.appearance(driver, "dark")
        ground = "return getComputedStyle(document.body).backgroundColor"
        assert driver.execute_script(ground) != "rgb(255, 255, 255)"
        driver.set_window_size(400, 800)
        narrow = "return document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1"
        browser.until(driver, lambda: driver.execute_script(narrow), "the page is wider than a narrow window")
        picture(driver, "narrow")
        browser.appearance(driver, "light")
        driver.set_window_size(1280, 900)

        driver.get(f"{served.url}/inspect#/score/user-3")
        browser.until(driver, lambda: driver.find_elements("name", "candidates"), "no form")
        driver.find_element("name", "query").send_keys("milk")
        next(b for b in driver.find_elements("css selector", "button") if "match the query" in b.text).click()
        area = driver.find_element("name", "candidates")
        browser.until(driver, lambda: "milk-" in area.get_property("value"), "no candidates")
        area.send_keys("\nno such, item")
        driver.find_element("css selector", "button.main").click()
        said = browser.says(driver, "Ranked", "no such, item", "unknown item")
        rates = [float(line.split(" %")[0].split()[-1]) for line in said.splitlines() if " % " in line and " why " in line]
        assert len(rates) > 1
        assert rates == sorted(rates, reverse=True)
        driver.find_element("css selector", "button.link").click()
        said = browser.says(driver, "as served", "without the behaviours that attention took", "under exact search")
        assert "behaviours were retrieved" in said
        browser.until(driver, lambda: drawn(driver, "[aria-label^='Attention to']") > 500, "attention is not drawn")
        driver.execute_script("document.querySelectorAll('h3')[1].scrollIntoView()")
        picture(driver, "score")

        driver.get(f"{served.url}/inspect#/health")
        said = browser.says(
            driver,
            trained.bundle,
            "Promotions",
            "<i>nobody</i>",
            "build: <u>no</u> PSU",
            "No evaluation has been written yet.",
        )
        assert "promoted" in said
        assert "evenness" in said
        next(b for b in driver.find_elements("css selector", "button") if b.text.startswith("Compare")).click()
        browser.until(driver, lambda: "users," in driver.find_element("id", "parity").text, "parity is not told")
        picture(driver, "health")
        driver.get(f"{served.url}/inspect#/user/nobody")
        browser.until(driver, lambda: "no sequence" in driver.find_element("id", "trouble").text, "nobody is not told")
        unexpected = [line for line in browser.errors(driver) if "user=nobody" not in line]
        assert unexpected == []
