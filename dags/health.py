"""Look at what runs, every quarter of an hour: each section is a task, **judge** keeps the report and calls when one is bad.

**stream**: freshness, lag, compaction, erasures and dates that wait. **parity**: a sample of users and entities, online
against history. **drift**: the newest date against those before. **click_rate**: what the served bundle predicts of the
newest impressions, against what was clicked. **codebooks**: error and recall on items that came after they were made.

A failed check fails **judge** with its figures, which alerts as every failure does (`alerts.jsonl`, `SEMINAR_ALERT_URL`).
Figures: `reports/health.json`, `reports/health/`; a page with plots and the last runs: `reports/health.html`.
"""

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.common import USUAL, dry_param, online
from features.settings import settings


@dag(
    "health",
    schedule=CronTriggerTimetable(settings().health, timezone="UTC"),
    dagrun_timeout=timedelta(hours=1),
    doc_md=__doc__,
    **USUAL,
    params={"dry": dry_param("look, and call nobody")},
)
def health() -> None:
    """Sections beside each other, then the judgement."""

    @task
    def stream() -> dict[str, Any]:
        """How far the stream is."""
        from features.settings import settings
        from model.train import health
        from streaming.status import look

        home, store = settings().home, online(settings().home)
        found = look(store, home, settings().bootstrap_servers) if store else None
        return health.stream(home, found, health.Limits.of(home))

    @task
    def parity() -> dict[str, Any]:
        """Online against history."""
        from features.parity import compare
        from features.settings import settings
        from model.train import health

        home, store = settings().home, online(settings().home)
        limits = health.Limits.of(home)
        return health.parity(compare(store, home, limits.sample) if store else None, limits)

    @task
    def drift() -> dict[str, Any]:
        """The newest date against those before."""
        from features.settings import settings
        from model.train import health

        return health.drift(settings().home, health.Limits.of(settings().home))

    @task
    def click_rate() -> dict[str, Any]:
        """Predicted against observed."""
        from features.settings import settings
        from model.train import health

        return health.click_rate(settings().home, health.Limits.of(settings().home))

    @task
    def codebooks() -> dict[str, Any]:
        """Items that came after them."""
        from features.settings import settings
        from model.train import health

        return health.codebooks(settings().home, health.Limits.of(settings().home))

    @task
    def judge(sections: dict[str, dict[str, Any]], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Keep the report, write the page, and fail when a check did."""
        from features import health_page
        from features.checks import missed
        from features.errors import SeminarError
        from features.settings import settings
        from model.train import health

        assert params is not None
        home = settings().home
        found = health.report(home, sections)
        health_page.write(home, health.before(home))
        why = missed([x for section in sections.values() for x in section["checks"]])
        if why and not params["dry"]:
            raise SeminarError("health", "", f"needs somebody to look: {why}", "see docs/operations.md, Runbook")
        return {"looked": found["looked"], "passed": found["passed"]}

    judge(
        {
            "stream": stream(),
            "parity": parity(),
            "drift": drift(),
            "click_rate": click_rate(),
            "codebooks": codebooks(),
        }
    )


health()
