"""A producer process that writes down what the broker acknowledged, for an oracle to compare with.

    python -m benchmarks.harness.load BOOTSTRAP FILE --first 0 --count 20000 --rate 500

FILE gets one JSON line for each event, written when the broker has acknowledged it and not before. An event's number
decides all of it, so that a load which was killed and is started again sends the same events under the same ids.
"""

import argparse
import json
import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streaming import clients

SOURCE = "load"


def event(number: int, base_ms: int, users: int = 40) -> dict[str, Any]:
    """Event `number`: what an oracle line holds, and what the message says. Two of three are browses."""
    dice = random.Random(number)
    found: dict[str, Any] = {"id": f"e{number}", "source": SOURCE, "user": f"user-{dice.randrange(users)}"}
    # Out of order by up to a minute, and sometimes at the same moment as another one.
    found["time"] = base_ms + (number - dice.randrange(60)) * 1000 + dice.choice((0, 0, dice.randrange(1000)))
    found |= {"kind": 2 if number % 3 else 1, "item": None, "query": None, "dwell": 0}
    if found["kind"] == 1 or dice.random() < 0.3:
        found["query"] = f"Query  number {dice.randrange(500)} ä"
    if found["kind"] == 2:
        found["item"] = f"item-{dice.randrange(3000)}"
        found["dwell"] = dice.choice((0, 3.5, 70_000))
    return found


def message(found: dict[str, Any]) -> tuple[str, bytes, bytes, list[tuple[str, bytes]]]:
    """Topic, key, body and headers of an event, written out here and not by the package that reads them."""
    kind = "browse" if found["kind"] == 2 else "search"
    body = {"user_id": found["user"]}
    body |= {"item_id": found["item"], "dwell_s": found["dwell"]} if kind == "browse" else {}
    body |= {"query": found["query"]} if found["query"] is not None else {}
    moment = datetime.fromtimestamp(found["time"] / 1000, UTC).isoformat(timespec="milliseconds")
    headers = [("ce_specversion", "1.0"), ("ce_type", f"seminar.{kind}.v1"), ("ce_source", found["source"])]
    headers += [("ce_id", found["id"]), ("ce_time", moment)]
    encoded = [(name, text.encode()) for name, text in headers]
    return f"seminar.{kind}", found["user"].encode(), json.dumps(body, ensure_ascii=False).encode(), encoded


def run(bootstrap: str, file: Path, first: int, count: int, rate: float, base_ms: int, bad: float = 0.0) -> None:
    """Send `count` events from number `first` on at `rate` a second (0: at once), wait for all acknowledgements.

    `bad`: the share of messages that are no events, sent beside them and not written down.
    """
    producer = clients.producer(
        bootstrap, linger_ms=5, metadata_max_age_ms=1000, delivery_timeout_ms=300_000, batch_size=1 << 18
    )
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    failures: list[BaseException] = []
    begin = time.monotonic()
    for number in range(first, first + count):
        if rate and (wait := begin + (number - first) / rate - time.monotonic()) > 0:
            time.sleep(wait)
        found = event(number, base_ms)
        topic, key, body, headers = message(found)
        line = (json.dumps(found, ensure_ascii=False) + "\n").encode()
        sent = producer.send(topic, key=key, value=body, headers=headers)
        sent.add_callback(lambda _, line=line: os.write(descriptor, line))
        sent.add_errback(failures.append)
        if bad and random.Random(-number).random() < bad:
            producer.send(topic, key=key, value=b"no json", headers=headers)
    producer.flush(300)
    producer.close()
    os.fsync(descriptor)
    if failures:
        raise failures[0]


def main() -> None:
    """Read the arguments and send."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap")
    parser.add_argument("file", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0, help="events a second; 0: as fast as it goes")
    parser.add_argument("--base-ms", type=int, default=1_500_000_000_000)
    parser.add_argument("--bad", type=float, default=0, help="share of messages that are no events")
    given = parser.parse_args()
    run(given.bootstrap, given.file, given.first, given.count, given.rate, given.base_ms, given.bad)
    print("done", file=sys.stderr)


if __name__ == "__main__":
    main()
