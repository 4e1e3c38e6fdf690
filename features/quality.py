"""QUALITY of history by partition: what came for a date, against limits and against the dates before it.

    <home>/reports/quality/<date>.json      the newest look at a date: figures, checks, whether it passed or was accepted

Shares are of the date's searches and browses (unknown items: of its browses; bad: of all messages that name the date).
Volumes are compared with the median of the dates before, where there are some. Limits: the table `quality` of
`<home>/settings.toml`.
"""

import re
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features import history, labels, reports, snapshot, versions
from features.checks import Check, missed
from features.checks import check as check_of
from features.errors import SeminarError
from features.record import KIND_BROWSE, RECORD
from features.sequences import packed
from features.settings import configured

DAY_MS = 86_400_000
IMPORTED = "import:"


@dataclass(frozen=True)
class Limits:
    """What a date may be like."""

    least: int = 1  # events of a closed date
    fewer: float = 0.2  # of the median of the dates before
    more: float = 5.0
    repeats: float = 0.2
    late: float = 0.2
    late_s: float = 172_800.0  # arrived this long after it happened
    ahead: float = 0.02
    ahead_s: float = 300.0  # happened this long after it arrived
    unknown: float = 0.2
    bad: float = 0.05
    click_rate: float = 3.0  # times higher or lower than before
    dates: int = 14  # how many before are compared with
    history: int = 3  # with fewer there is no comparison


def day(date: str) -> int:
    """The first ms of a date (UTC); SeminarError for what is not written as `date_of` writes it: reports are named so."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", date):
            return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        pass
    raise SeminarError("date", date, "is none", "write e.g. 2026-01-31")


def date_of(ms: int) -> str:
    """The date (UTC) of a time."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def measure(home: Path, date: str, bad: int = 0, limits: Limits | None = None) -> dict[str, Any]:
    """The figures of a date; bad: messages of that date that were refused."""
    limits = limits or Limits()
    since = day(date)
    names = ["user_id", "sequence", "event_timestamp", "arrived", *history.ORIGIN]
    rows = history.read(home, history.EVENTS, since, since + DAY_MS, names)
    # What a replay wrote again is no repeat: of equal rows that which arrived first, as merging keeps it.
    rows = history.one_of_each(rows, ["user_id", "sequence"], ("arrived",), last=False)
    records, n = packed(rows["sequence"].combine_chunks()), len(rows)
    happened, arrived = (history.milliseconds(rows[name]) for name in ("event_timestamp", "arrived"))
    streamed = np.array([not (topic or "").startswith(IMPORTED) for topic in rows["topic"].to_pylist()], bool)
    behind = (arrived - happened)[streamed] / 1000
    browsed = records["kind"] == KIND_BROWSE
    known = history.read(home, history.ITEMS, columns=["item"])["item"].to_numpy().view(np.uint64)
    unknown = ~np.isin(records["item"][browsed], known)
    shown = history.read_impressions(home, since, since + DAY_MS)
    clicks = labels.join(home, since, since + DAY_MS, np.iinfo(np.int64).max - DAY_MS) if len(shown) else None
    items = sum(map(len, shown["items"].to_pylist()))
    return {
        "date": date,
        "events": n,
        "browses": int(browsed.sum()),
        "streamed": int(streamed.sum()),
        "users": len(set(rows["user_id"].to_pylist())),
        "impressions": len(shown),
        "repeats": _share(n - _distinct(rows["user_id"], records), n),
        "late": _share(int((behind > limits.late_s).sum()), len(behind)),
        "ahead": _share(int((behind < -limits.ahead_s).sum()), len(behind)),
        "unknown": _share(int(unknown.sum()), len(unknown)),
        "bad": _share(bad, n + bad),
        "click_rate": _share(sum(map(len, clicks["clicked"].to_pylist())), items) if clicks is not None else None,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _distinct(users: pa.ChunkedArray, records: np.ndarray[Any, np.dtype[np.void]]) -> int:
    """Behaviours that differ in more than the id that their producer gave them."""
    if not len(records):
        return 0
    owner = users.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    kept = [name for name in RECORD.names or () if name not in ("digest",)]
    columns = [owner, *(records[name] for name in kept)]
    order = np.lexsort(columns)
    new = np.zeros(len(order) - 1, bool)
    for column in columns:
        new |= column[order[1:]] != column[order[:-1]]
    return int(new.sum()) + 1


def check(
    home: Path, date: str, *, bad: int = 0, closed: bool = False, limits: Limits | None = None, dry: bool = False
) -> dict[str, Any]:
    """Look at a date and keep the report; closed: nothing more is expected of it, so that too little is a fault.

    Returns the figures with "before" (medians of the dates before), "checks" ([{"name", "value", "limit", "at", "applies",
    "passed", "why"}]), "passed" and "accepted" (the reason for which somebody let the date pass).
    """
    limits = limits or configured(home, "quality", Limits)
    former = reports.load(home, f"quality/{date}") or {}
    closed = closed or bool(former.get("closed"))  # a late event does not open it again
    found = measure(home, date, bad, limits)
    earlier = before(home, date, limits)
    checks = _checks(found, earlier, closed, limits)
    accepted = former.get("accepted")
    report = {
        **found,
        "closed": closed,
        "before": earlier,
        "checks": checks,
        "passed": all(x["passed"] for x in checks),
        "accepted": accepted,
        "looked": datetime.now(UTC).isoformat(),
    }
    return report if dry else reports.save(home, f"quality/{date}", report)


def before(home: Path, date: str, limits: Limits) -> dict[str, float]:
    """Medians over the dates before that passed (or were never looked at) and have events; {} where they are too few."""
    end = datetime.fromtimestamp(day(date) / 1000, UTC)
    found = []
    for back in range(1, 2 * limits.dates + 1):
        name = f"{end - timedelta(days=back):%Y-%m-%d}"
        known = reports.load(home, f"quality/{name}")
        if known is None or not known["passed"]:
            if known is not None or not snapshot.files(home, history.EVENTS, None, day(name), day(name)):
                continue
            known = measure(home, name, 0, limits)
            reports.save(home, f"quality/{name}", known | {"passed": True, "checks": [], "accepted": None, "closed": False})
        if known["events"]:
            found.append(known)
        if len(found) == limits.dates:
            break
    if len(found) < limits.history:
        return {}
    names = ("events", "impressions", "click_rate")
    return {
        name: statistics.median(values)
        for name in names
        if (values := [x[name] for x in found if x[name] is not None]) and len(values) >= limits.history
    }


def _checks(found: dict[str, Any], earlier: dict[str, float], closed: bool, limits: Limits) -> list[Check]:
    few = "too few dates before to compare with"
    open_ = "" if closed else "the date is not over"
    rows: list[tuple[str, Any, Any, bool, str]] = [("events", found["events"], limits.least, False, open_)]
    for name in ("events", "impressions"):
        usual = earlier.get(name)
        ratio = found[name] / usual if usual else None
        why = few if ratio is None else ""
        imported = "" if found["streamed"] or not found["events"] else "it was imported, not streamed"
        rows.append((f"{name}_fewer", ratio, limits.fewer, False, why or open_ or imported))
        rows.append((f"{name}_more", ratio, limits.more, True, why or imported))
    for name in ("repeats", "late", "ahead", "unknown", "bad"):
        nothing = "nothing of it came" if found[name] is None else ""
        rows.append((name, found[name], getattr(limits, name), True, nothing))
    usual, rate = earlier.get("click_rate"), found["click_rate"]
    why = few if not usual else "nothing was shown" if rate is None else ""
    ratio = None if not usual or rate is None else rate / usual
    rows.append(("click_rate_higher", ratio, limits.click_rate, True, why))
    rows.append(("click_rate_lower", ratio, 1 / limits.click_rate, False, why or open_))
    return [check_of(name, value, limit, why, most=most) for name, value, limit, most, why in rows]


def refuse(report: dict[str, Any]) -> None:
    """SeminarError with the numbers where a date did not pass and nobody accepted it."""
    if (bad := missed(report["checks"])) and not report["accepted"]:
        raise SeminarError(
            "history date",
            report["date"],
            f"is not as it should be: {bad}; {report['events']} events",
            f"see reports/quality/{report['date']}.json; if it is right as it is: {how_to_accept(report['date'])}",
        )


def how_to_accept(date: str) -> str:
    """The command, for remedies."""
    return f"`seminar history accept {date} --reason WHY`"


def accept(home: Path, date: str, reason: str) -> dict[str, Any]:
    """Let a date pass whatever its figures are; SeminarError without a reason."""
    day(date)
    if not reason.strip():
        raise SeminarError("--reason", reason, "is empty", "say why the date is right as it is")
    report = reports.load(home, f"quality/{date}")
    if report is None:
        report = check(home, date)
    return reports.save(home, f"quality/{date}", report | {"accepted": reason})


def refused(home: Path) -> list[str]:
    """Dates that did not pass and that nobody accepted."""
    folder = home / "reports" / "quality"
    names = sorted(file.stem for file in folder.glob("????-??-??.json")) if folder.is_dir() else []
    found = [(name, reports.load(home, f"quality/{name}")) for name in names]
    return [name for name, x in found if x and not x["passed"] and not x["accepted"]]


def fresh(home: Path) -> list[str]:
    """Dates that have events which no version of history has absorbed yet."""
    manifest = versions.newest(home)
    absorbed = manifest.of(history.EVENTS).absorbed if manifest else {}
    loose = snapshot.loose(home / "history" / history.EVENTS)
    return sorted({name[len("date=") : len("date=2026-01-01")] for name, stamp in loose if absorbed.get(name) != stamp})
