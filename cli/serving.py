"""`seminar serve | score | keys`: the service, one score without it, and who may ask it."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import moment
from cli.output import Json, Output, log_to_stderr
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer()


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to bind; not loopback only with SEMINAR_API_KEYS.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; they share the bundle's memory.")] = 1,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait in a worker; more get 503 at once.")] = 32,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds a request may take that names no deadline.")] = 2.0,
    store: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the online store.")] = 0.15,
    stale: Annotated[float, typer.Option(min=0.1, help="Seconds after which a watermark counts as stale.")] = 60.0,
    logged: Annotated[float, typer.Option(min=0, max=1, help="Share of scored requests that are logged.")] = 0.01,
) -> None:
    """Answer click-through rates over HTTP with the promoted bundle."""
    from cli.inspected import OUTSIDE
    from model.serve.server import serve as run
    from model.serve.service import Limits

    log_to_stderr()
    run(host, port, workers, Limits(waiting=waiting, deadline=deadline, store=store, stale=stale, logged=logged), OUTSIDE)


@app.command()
def score(
    user: Annotated[str, typer.Option(help="Whose history.")],
    candidates: Annotated[str, typer.Option(help="Item ids, separated by commas.")],
    query: Annotated[str | None, typer.Option(help="What the user searches for.")] = None,
    time: Annotated[str | None, typer.Option(help="When (RFC 3339); now if absent.")] = None,
    explain: Annotated[bool, typer.Option(help="Which past behaviours the first candidate retrieved.")] = False,
    as_json: Json = False,
) -> None:
    """Score candidates in this process with the promoted bundle, as `seminar serve` would."""
    from cli.scoring import show, show_explanation
    from features.record import entity_id
    from model.serve.service import Limits, Service

    keys, shown = [key for key in candidates.split(",") if key], moment(time)
    if not keys:
        raise SeminarError("candidates", candidates, "names no item", "separate item ids by commas")
    service = Service(settings(), Limits(store=30.0))  # nobody waits for an answer within milliseconds
    service.prepare()
    service.watch.look()
    found = service.swap.scorer().score(
        user, keys, query=query, time_ms=shown, explain=keys[:1] if explain else (), watch=service.watch
    )
    answer = found.as_dict(service.watch.now())
    rows = service.store.online.items([entity_id(key) for key in keys])
    out = Output(as_json)
    show(out, answer, {key: row["title"] or "" for key, row in zip(keys, rows, strict=True) if row}, query)
    for reason in answer["degraded"]:
        out.line(f"degraded: {reason}")
    for explanation in answer.get("explanations", ()):
        show_explanation(out, explanation)
    out.result(dict(answer))


@app.command()
def recompute(
    since: Annotated[str | None, typer.Option(help="Requests since then (RFC 3339); all that are kept if absent.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Recompute logged requests from history; exit status 1 where the same records gave other rates."""
    from model.serve.recompute import SAME
    from model.serve.recompute import recompute as run

    found = run(settings().home, moment(since) if since else 0, most)
    out = Output(as_json)
    out.line(
        f"{found['recomputed']} of {found['requests']} requests recomputed, {found['same_records']} from the same records: "
        f"rates differ by {found['max_difference_same_records']:.2g} at most, {found['max_difference']:.2g} in all"
    )
    for reason, count in found["left_out"].items():
        out.line(f"left out: {count}, {reason}")
    out.result(found)
    if found["max_difference_same_records"] > SAME:
        raise typer.Exit(1)


@app.command()
def keys(
    name: Annotated[str, typer.Argument(help="Who gets the key.")],
    scopes: Annotated[str, typer.Option(help="What it may do: score, read-sequence, admin; separated by commas.")] = "score",
    as_json: Json = False,
) -> None:
    """Make an API key and add its digest to the file SEMINAR_API_KEYS; the key is shown this once."""
    from model.serve.keys import SCOPES, create

    file: Path | None = settings().api_keys
    if file is None:
        raise SeminarError("SEMINAR_API_KEYS", "", "is not set", "name a file; it is made if there is none")
    wanted = [scope for scope in SCOPES if scope in scopes.split(",")]
    if not wanted or len(wanted) != len(set(scopes.split(","))):
        raise SeminarError("scopes", scopes, "are not known", f"name some of {', '.join(SCOPES)}")
    key = create(file, name, wanted)
    out = Output(as_json)
    out.line(f"{name}: {key}")
    out.result({"name": name, "key": key, "scopes": wanted, "file": str(file)})
