"""After a release: do the scorers really serve the new version?"""

import time
from collections.abc import Sequence
from typing import Any

import httpx

LASTING_S = 5.0
"""How long a refusal must last: one of before the promotion is gone as soon as the scorer looks at the pointer."""


def confirm(
    scorers: Sequence[str], bundle: str, patience_s: float = 120.0, every_s: float = 1.0, lasting_s: float = LASTING_S
) -> dict[str, Any]:
    """Ask every scorer's /v2/health/ready until all workers serve the bundle, or one goes on refusing it, or patience ends.

    Returns {"served", "scorers": [{"url", "model_version", "why"}], "seconds"}; why: "" for one that serves it.
    """
    begin = time.monotonic()
    waiting, found, refused_at = list(scorers), dict[str, dict[str, Any]](), dict[str, float]()
    with httpx.Client(timeout=5) as client:
        while waiting:
            for url in tuple(waiting):
                state, now = _ask(client, url, bundle), time.monotonic()
                found[url] = state
                if not state["why"].startswith("refuses"):
                    refused_at.pop(url, None)
                elif now - refused_at.setdefault(url, now) >= lasting_s:
                    waiting.remove(url)
                if not state["why"]:
                    waiting.remove(url)
            if not waiting or time.monotonic() - begin > patience_s:
                break
            time.sleep(every_s)
    return {
        "served": all(not x["why"] for x in found.values()),
        "scorers": [found[url] for url in scorers],
        "seconds": round(time.monotonic() - begin, 1),
    }


def _ask(client: httpx.Client, url: str, bundle: str) -> dict[str, Any]:
    try:
        answer = client.get(f"{url}/v2/health/ready")
        body = answer.json() if answer.status_code == 200 else {}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return {"url": url, "model_version": None, "why": f"does not answer ({type(error).__name__})"}
    workers = body.get("workers") or [body]
    behind = [worker.get("model_version") for worker in workers if worker.get("model_version") != bundle]
    refused = [worker["refused"] for worker in workers if (worker.get("refused") or {}).get("version") == bundle]
    if not behind:
        why = ""
    elif refused:
        why = f"refuses it: {refused[0].get('reason')}"
    elif not body:
        why = f"is not ready ({answer.status_code})"
    else:
        why = f"serves {behind[0] or 'nothing yet'} in {len(behind)} of {len(workers)} workers"
    return {"url": url, "model_version": behind[0] if behind else bundle, "why": why}
