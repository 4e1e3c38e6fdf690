"""Close a date, once a day: wait for the watermark, check the date, join its labels, pin history for the training chain.

**pin** names the date: the day before the run, or the one that a backfill or the params name. **wait** sleeps until the
stream has applied all that had happened by the end of it. **check** looks at the whole date: an empty or a poisoned one
stops here. **join** writes which of the items shown were clicked, and corrects the dates before for clicks that came
late. **close** publishes a version of history with all of that.

Emits `seminar://labels` with the date and the version, which triggers `psu`. When another run closed the date and nothing
came since, nothing is emitted. Figures: `reports/quality/<date>.json`, `reports/labels.json`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, PokeReturnValue, dag, task

from dags.common import LABELS, USUAL, date_param, dry_param, online
from features.settings import settings


@dag(
    "labels",
    schedule=CronTriggerTimetable(settings().daily, timezone="UTC"),
    doc_md=__doc__,
    **USUAL,
    params={
        "date": date_param(),
        "correct": Param(
            3,
            type="integer",
            minimum=0,
            maximum=60,
            title="Dates corrected",
            description_md="How many dates before are joined again, for clicks that came late.",
        ),
        "dry": dry_param("check the date and join, write and emit nothing"),
    },
)
def labels() -> None:
    """Pin, wait, check, join, close."""

    @task
    def pin(params: dict[str, Any] | None = None, dag_run: Any = None) -> str:
        """The date to close."""
        from features.quality import day

        assert params is not None
        when = dag_run.logical_date or dag_run.run_after
        date = params["date"] or f"{when - timedelta(days=1):%Y-%m-%d}"
        day(date)
        return str(date)

    @task.sensor(mode="reschedule", poke_interval=30, timeout=6 * 3600)
    def wait(date: str) -> PokeReturnValue:
        """Whether the stream has applied all that arrived by the end of the date; at once where nothing is streamed."""
        from features.quality import DAY_MS, day
        from features.settings import settings
        from features.state import watermarks

        store = online(settings().home)
        marks = watermarks(store) if store else {}
        oldest = min((mark.time_ms for mark in marks.values()), default=None)
        return PokeReturnValue(is_done=oldest is None or oldest >= day(date) + DAY_MS, xcom_value=oldest)

    @task
    def check(date: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The whole date, and that no other one waits to be looked at."""
        from features import quality
        from features.settings import settings
        from streaming.deadletters import dates

        assert params is not None
        home = settings().home
        bad = dates(home, settings().bootstrap_servers)
        for name in quality.fresh(home):
            quality.refuse(quality.check(home, name, bad=bad.get(name, 0), closed=name == date, dry=params["dry"]))
        report = quality.check(home, date, bad=bad.get(date, 0), closed=True, dry=params["dry"])
        quality.refuse(report)
        return report

    @task
    def join(date: str, watermark: int | None, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Labels of the date and of those before it."""
        import time

        from features import labels
        from features.quality import DAY_MS, day
        from features.settings import settings

        assert params is not None
        mark = int(time.time() * 1000) if watermark is None else watermark
        since, until = day(date) - params["correct"] * DAY_MS, day(date) + DAY_MS
        if params["dry"]:
            return {"impressions": len(labels.join(settings().home, since, until, mark)), "written": 0}
        return labels.publish(settings().home, since, until, mark)

    @task(outlets=[LABELS])
    def close(
        date: str,
        joined: dict[str, Any],
        params: dict[str, Any] | None = None,
        dag_run: Any = None,
        outlet_events: Any = None,
    ) -> Any:
        """A version of history with the date in it; skipped when another run closed the date and nothing came since."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features import labels
        from features.compaction import compact
        from features.settings import settings
        from model.train.retention import hold_for_run

        assert params is not None
        if params["dry"]:
            raise AirflowSkipException("dry run")
        home = settings().home
        version = compact(home)["version"]
        found = labels.close(home, date, version, dag_run.run_id, joined)
        if found is None:
            raise AirflowSkipException(f"{date} was closed before, and nothing came since {version}")
        hold_for_run(home, version, f"labels-{dag_run.run_id}")  # until `psu` starts, however long it waits
        outlet_events[LABELS].extra = {"date": date, "history": version}
        return found

    date = pin()
    watermark = wait(date)
    checked = check(date)
    joined = join(date, watermark)
    watermark >> checked >> joined
    close(date, joined)


labels()
