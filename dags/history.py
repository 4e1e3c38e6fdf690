"""Look at what came, then compact it, every hour.

**check** holds every date with new events, and the date of the run's own partition, against limits and the dates before:
volume, repeats, late events, clocks that are ahead, unknown items, refused messages, click rate. One that is not as it
should be fails the run at once, with the numbers; nothing is compacted then, and the nightly chain does not start.
**erase**, beside all that, takes out of every file what `forget` events asked for, whose users are forgotten online already.
**retain** removes versions that no live one points to. **compact** merges loose files into the next version of history
and clears away garbage.

Partitions are hours; a backfill names dates: `airflow backfill create --dag-id history --from-date ... --to-date ...`.

Emits `seminar://history` with the version. Figures: `reports/quality/<date>.json`, `reports/history.json`; a receipt of what
was erased: `reports/forget-<ms>.json`.
"""

from typing import Any

from airflow.sdk import CronPartitionTimetable, Param, dag, task

from dags.common import HISTORY, USUAL, date_param, dry_param, online
from features.settings import settings


@dag(
    "history",
    schedule=CronPartitionTimetable(settings().hourly, timezone="UTC", run_offset=-1),
    doc_md=__doc__,
    **USUAL,
    params={
        "date": date_param(),
        "grace_s": Param(
            3600,
            type="integer",
            minimum=0,
            title="Grace (s)",
            description_md="How long files stay that a reader may still need.",
        ),
        "keep": Param(
            3, type="integer", minimum=1, title="Kept", description_md="The newest versions of each kind that stay."
        ),
        "dry": dry_param("check dates, list what would be removed, compact nothing"),
    },
)
def history() -> None:
    """Check, retain, compact; erase."""

    @task
    def erase(params: dict[str, Any] | None = None) -> dict[str, int]:
        """Finish what forget events, or a crash while forgetting, left in files."""
        from features.fences import pending
        from features.settings import settings
        from streaming.forget import finish

        assert params is not None
        home, bootstrap = settings().home, settings().bootstrap_servers
        wanted, store = len(pending(home)), online(home)
        if not wanted or params["dry"] or store is None:
            return {"waiting": wanted}
        receipt = finish(store, home, bootstrap)
        return {"waiting": 0, "users": len(receipt["users"]), "rows": receipt["rows"]}

    @task
    def check(params: dict[str, Any] | None = None, dag_run: Any = None) -> dict[str, Any]:
        """Data quality of the dates that have new events, and of the partition's own."""
        from features import quality
        from features.settings import settings
        from streaming.deadletters import dates

        assert params is not None
        home = settings().home
        named = params["date"] or (dag_run.partition_key or "")[:10]
        wanted = sorted({*quality.fresh(home), *([named] if named else [])})
        bad = dates(home, settings().bootstrap_servers)
        reports = [quality.check(home, date, bad=bad.get(date, 0), dry=params["dry"]) for date in wanted]
        for report in reports:
            quality.refuse(report)
        return {"dates": {x["date"]: x["events"] for x in reports}}

    @task
    def retain(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Let go what no live version points to."""
        from features import journal
        from features.settings import settings
        from model.train.retention import prune

        assert params is not None
        journal.trim(settings().home)
        return prune(settings().home, keep=params["keep"], dry=params["dry"])

    @task(outlets=[HISTORY])
    def compact(params: dict[str, Any] | None = None, outlet_events: Any = None) -> dict[str, Any]:
        """Publish the next version of history, if there is anything new."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features.compaction import compact
        from features.reports import save
        from features.settings import settings

        assert params is not None
        if params["dry"]:
            raise AirflowSkipException("dry run")
        facts = save(settings().home, "history", compact(settings().home, grace_s=params["grace_s"]))
        outlet_events[HISTORY].extra = {"history": facts["version"]}
        return facts

    erase()
    check() >> retain() >> compact()


history()
