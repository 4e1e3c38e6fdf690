"""What one process sees that runs every DAG for real, on good days, on bad ones, and with params that are refused.

    python -m tests.dags.whole FOLDER      prints one JSON object

Airflow keeps the database that it was started with, so all homes share that of the first; SEMINAR_HOME names which is meant.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.harness import days
from cli import airflow
from features import quality, versions
from features.fences import pending
from features.publish import current
from streaming.events import BROWSE, FORGET, build
from tests.dags import shop

LENGTH = 24


def attempt(dag: str, conf: dict[str, Any], states: dict[str, str] | None = None) -> str:
    """Run a DAG: "" or its refusal; the states of its tasks go into `states`."""
    try:
        airflow.run(dag, conf, on_task=lambda task: (states if states is not None else {}).update({task.name: task.state}))
    except airflow.SeminarError as error:
        return str(error)
    return ""


def chain(home: Path, date: str) -> dict[str, Any]:
    """A good day from its events to a served version, then a challenger that nobody should see."""
    found: dict[str, Any] = {"states": {}}
    found["dry"] = attempt("history", {"dry": True}), versions.last(home)
    found["history"] = airflow.run("history")
    found["waiting"] = len(pending(home))
    found["labels"] = airflow.run("labels", {"date": date})
    again: dict[str, str] = {}
    found["labels_again"] = attempt("labels", {"date": date}, again), again
    found["psu"] = airflow.run("psu")
    found["codebooks"] = airflow.run("codebooks", {"shard": 25})
    found["psu_again"] = airflow.run("psu", {"seed": 1, "epochs": 0.5})
    found["ctr"] = airflow.run(
        "ctr", {"baselines": ["din_recent"]}, on_task=lambda task: found["states"].update({task.name: task.state})
    )
    found["health"] = attempt("health", {})
    # One that sees neither the past nor what items are.
    (home / "settings.toml").write_text(shop.SETTINGS.replace("margin = 0.3", "margin = 0.02"))
    states: dict[str, str] = {}
    blind = {"settings": {"model": {"history": 1, "without": "id,attribute,text"}}}
    found["stopped"] = attempt("ctr", blind, states), states, current(home / "bundles")
    # One that no scorer can be found to serve.
    (home / "settings.toml").write_text(shop.SETTINGS.replace("margin = 0.3", "margin = 1.0"))
    os.environ["SEMINAR_SCORERS"] = "http://127.0.0.1:9"
    found["unserved"] = attempt("ctr", {"patience_s": 1}), current(home / "bundles")
    del os.environ["SEMINAR_SCORERS"]
    return found


def bad_days(folder: Path, when: int) -> dict[str, str]:
    """How the DAG that should stop each day ended."""
    found = {}
    shop.make(base := folder / "small", when, length=4)
    for poison in days.POISONS:
        shop.copy(base, home := folder / poison)
        shop.stream(home, days.day(when, poison=poison))
        dag = "labels" if poison == "empty" else "history"
        found[poison] = attempt(dag, {"date": quality.date_of(when)})
    found["training"] = attempt("psu", {"dry": True})  # of the last bad day's home
    (waiting,) = quality.refused(home)
    quality.accept(home, waiting, "its clocks were mended")
    found["accepted"] = attempt("history", {}) + attempt("psu", {"dry": True})
    return found


def bad_params(home: Path) -> dict[str, str]:
    """How runs end whose params are refused."""
    windows = {"t1": "2025-01-29", "t2": "2025-02-10", "t3": "2025-02-15", "end": "2025-02-20"}
    return {
        "date": attempt("psu", {"windows": {**windows, "t1": "yesterday"}}),
        "order": attempt("psu", {"windows": {**windows, "t1": windows["end"]}}),
        "setting": attempt("psu", {"windows": windows, "settings": {"model": {"wings": 2}}}),
        "version": attempt("ctr", {"codebooks": "v000009"}),
        "history": attempt("psu", {"history": "v000999"}),
    }


def pins(home: Path) -> dict[str, str]:
    """Which version a run reads."""
    from dags.common import PSU, extra_of, pinned

    events = {PSU: [SimpleNamespace(extra={"psu": "v000002"}), SimpleNamespace(extra={"psu": "v000001"})]}
    return {
        "named": pinned(home / "psu", "v000002", extra_of(events, PSU)),
        "triggered": pinned(home / "psu", None, extra_of(events, PSU)),
        "by hand": pinned(home / "psu", None, extra_of({}, PSU)),
    }


def asset_events() -> list[Any]:
    """Name and extra of every asset event, in order."""
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session

    with create_session() as session:
        return [[event.asset.name, event.extra] for event in session.query(AssetEvent).order_by(AssetEvent.id)]


def main() -> None:
    """Make a shop, run everything, print what was seen."""
    folder, when = Path(sys.argv[1]), shop.yesterday()
    base, home = folder / "base", folder / "home"
    shop.make(base, when, LENGTH)
    airflow.prepare(base)
    shop.copy(base, home)
    left = [build(BROWSE, {"user_id": "leaver", "item_id": f"{days.KINDS[0]}-{i}"}, when, "whole") for i in range(2)]
    shop.past(home, left)
    shop.stream(home, [*days.day(when), build(FORGET, {"user_id": "leaver"}, when + 1, "whole")])
    found = chain(home, quality.date_of(when)) | {"events": asset_events(), "pinned": pins(home), "bad": bad_params(home)}
    print(json.dumps(found | {"days": bad_days(folder, when)}))


if __name__ == "__main__":
    main()
