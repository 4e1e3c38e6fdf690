"""Forgetting a user: a fence in history and in the user's row, then everything older goes from every file.

1. The fence is set in history: from here on every append, merge, rebuild, import and training read drops what is older.
2. Batches in hand are waited for.
3. The user's row is replaced by the fence, atomically.
4. Rows go from every file of history, pinned versions too.
5. Query texts that only this user issued go, while no batch is applied.
6. Dead letters of the user are taken back, lines of the log of scored requests, and lists of candidates that name the user.
7. The online store's own files are purged.

A crash leaves the fence marked as pending; `seminar forget --pending` finishes. A forget event does step 1 and 3 at once.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features import barrier, reports, requests
from features.erasure import erase_lists, erase_queries, erase_rows, forget_named, named, unused, users_of
from features.fences import pending, raise_fence, settle, user_hash
from features.online import Online
from features.publish import versions
from streaming.batch import NO_RECORDS
from streaming.deadletters import FileSink, KafkaSink, Letter, letters_in_file, letters_in_kafka
from streaming.events import ITEM, SKEW_MS


def forget(user: str, online: Online, home: Path, bootstrap: str | None) -> dict[str, Any]:
    """Forget one user up to now and the permitted skew; the receipt."""
    fence = int(time.time() * 1000) + SKEW_MS
    raise_fence(home, user_hash(user), fence)
    with barrier.alone(home):
        pass
    online.forget(user, fence)
    return finish(online, home, bootstrap)


def finish(online: Online, home: Path, bootstrap: str | None) -> dict[str, Any]:
    """Erase what pending fences left in files and online; the receipt."""
    with barrier.erasing(home):
        return _finish(online, home, bootstrap)


def _finish(online: Online, home: Path, bootstrap: str | None) -> dict[str, Any]:
    fences = pending(home)
    with barrier.alone(home):
        pass
    # Whoever raised a fence may have died before the row online had it; files name the user until they are erased.
    users = {name: fences[user_hash(name)] for name in users_of(home, fences)}
    online.append(dict.fromkeys(users, NO_RECORDS), users)
    erased = erase_rows(home, fences)
    with barrier.alone(home):
        queries = unused(home, named(home))
        texts = erase_queries(home, queries)
        online.delete_queries(sorted(queries))
        forget_named(home)
        letters = _erase_file_letters(home, fences)
    scored, lists = requests.erase(home, fences), erase_lists(home, fences)
    if bootstrap:
        letters += _erase_kafka_letters(bootstrap, fences)
    online.purge()
    for user, fence in fences.items():
        settle(home, user, fence)
    remains = {
        "Kafka": "events stay until the topics' retention has passed; read again, they are dropped"
        if bootstrap
        else "no broker was named: events and dead letters there stay until retention and compaction have passed",
        "trained weights": {kind: found for kind in ("psu", "codebooks", "bundles") if (found := versions(home / kind))},
        "online store": "the user's id with the fence, without which a replay would bring the events back",
        "history": "a hash of the user's id with the fence",
        "backups and reports": "copies made elsewhere, and reports written before",
    }
    receipt = {
        "users": [{"hash": user, "fence_ms": fence} for user, fence in sorted(fences.items())],
        "rows": erased.rows,
        "files": erased.files + texts.files,
        "query_texts": len(queries),
        "dead_letters": letters,
        "logged_requests": scored,
        "candidate_lists": lists,
        "remains": remains,
    }
    return reports.save(home, f"forget-{int(time.time() * 1000)}", receipt)


def _of(letter: Letter, fences: Mapping[str, int]) -> bool:
    """Whether a refused message is about one of the users: by its key, or by the `user_id` in its body."""
    about_item = letter.message.headers.get("ce_type") == ITEM.encode()  # whose key is the item's
    names = [] if about_item else [(letter.message.key or b"").decode(errors="replace")]
    try:
        body = json.loads(letter.message.value or b"")
        names += [str(body["user_id"])] if isinstance(body, dict) and "user_id" in body else []
    except (ValueError, RecursionError):
        pass
    return any(user_hash(name) in fences for name in names)


def _erase_kafka_letters(bootstrap: str, fences: Mapping[str, int]) -> int:
    keys = [letter.key for letter in letters_in_kafka(bootstrap) if _of(letter, fences)]
    if keys:
        sink = KafkaSink(bootstrap)
        try:
            sink.remove(keys)
        finally:
            sink.close()
    return len(keys)


def _erase_file_letters(home: Path, fences: Mapping[str, int]) -> int:
    """Imports write letters while they hold the barrier, so nobody appends to the file meanwhile."""
    letters = letters_in_file(home)
    kept = [letter for letter in letters if not _of(letter, fences)]
    if len(kept) < len(letters):
        FileSink(home).rewrite(kept)
    return len(letters) - len(kept)
