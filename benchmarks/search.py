"""What retrieving a target's 100 best behaviours costs, beside exact search and other quantised ones; one thread.

    python -m benchmarks.search --json

From decoded records and folded queries to the exactly scored 100 best: ids to rows, time bias, tables, packing, scan and
rerank are inside the clock; only `ours_cached` keeps a user's grouped history. All ways share the mapping of ids. Keys:
`hard` are 200,000 items around 300 Gaussian centres with noise of 0.7 and unit norm, a uniform history; `trained` are a
bundle's, with real histories put one after another and timed anew (needs SEMINAR_HOME with a bundle). A hit scores the
100th best - 1e-6 at least. Milliseconds of processor time of the one thread (other work of the machine does not count),
medians of interleaved rounds in random order, caches emptied before each, and ratios of these.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import faiss
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.harness import searches
from benchmarks.harness.searches import K, World
from features.history import read_sequences
from features.publish import current
from features.record import Records
from features.settings import settings
from model import bundle
from model.compute import tune
from model.search import kernel
from model.search.keys import Floats

LENGTHS, CANDIDATES, DIMS = (1_000, 10_000, 100_000), (1, 100, 500), (64, 256)
EXACT = ("exact fp32", "exact, repeats once", "exact, repeats once (numpy)")
CACHES = 96 << 20  # bytes that take the place of whatever the caches held
SHORT = 1_000_000  # scores up to which there are three times as many rounds
SLOW = dict.fromkeys(("faiss PQ", "int8 GEMM", "pq of ours", "ETA hashes"), 2e6)  # scores above which one round is enough


def run(
    lengths: tuple[int, ...] = LENGTHS,
    candidates: tuple[int, ...] = CANDIDATES,
    dims: tuple[int, ...] = DIMS,
    rounds: int = 7,
    items: int = 200_000,
    only: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Measure every case; items of the hard keys; only: some of the ways."""
    tune()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    cases: list[dict[str, Any]] = []
    with threadpool_limits(1):
        for keys, dim, world, some in _worlds(dims, items):
            searches.train_faiss(world)
            for length in lengths:
                for count in candidates:
                    history, folded = some(length, count)
                    facts = {"keys": keys, "dim": dim, "length": length, "candidates": count}
                    facts["distinct_items"] = len(np.unique(history["item"]))
                    cases += [facts | row for row in _measure(world, history, folded, rounds, only)]
    return {
        "bench": "search",
        "cases": cases,
        "k": K,
        "threads": 1,
        "rounds": rounds,
        "kernel": "portable" if kernel.library() is None else "compiled",
        "processor": _processor(),
        "load_1min": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "torch", "faiss-cpu", "numba")},
    }


def _worlds(dims: tuple[int, ...], items: int) -> Iterator[tuple[str, int, World, Any]]:
    home = settings().home
    name = current(home / "bundles")
    if name is not None:
        loaded = bundle.load(home / "bundles" / name)
        world, stored = searches.trained(loaded), read_sequences(home)

        def real(length: int, count: int) -> tuple[Records, Floats]:
            """Households one after another, an event a quarter of an hour; candidates are what came later."""
            repeated = np.resize(stored.records, length + count)
            repeated["time"] = 1_500_000_000_000 + 900_000 * np.arange(length + count)
            later = np.random.default_rng(length).choice(stored.records[length : length + max(5000, count)], count)
            rows = world.items.rows(later["item"]), world.queries.rows(later["query"])
            return repeated[:length], searches.fold(loaded, np.maximum(rows[0], 0), np.maximum(rows[1], 0))

        yield "trained", loaded.spec.dim, world, real
    for dim in dims:
        made = searches.hard(dim, items)

        def drawn(length: int, count: int, made: World = made) -> tuple[Records, Floats]:
            rows = np.random.default_rng(count).integers(1, len(made.items.parts), count)
            return searches.hard_history(made, length, length), made.items.parts[rows]

        yield "hard", dim, made, drawn


def _measure(world: World, history: Records, folded: Floats, rounds: int, only: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    named = {name: way for name, way in searches.ways(world, history).items() if not only or name in only}
    keys = world.keys(history)
    truth = folded @ keys.gather(np.arange(len(keys))).T + keys.bias
    least = np.partition(truth, len(keys) - K, 1)[:, -K] - 1e-6
    seconds: dict[str, list[float]] = {name: [] for name in named}
    recall = {}
    for name, way in named.items():  # the first round finds everything compiled and mapped
        places, _ = way(history, folded)
        hits = np.take_along_axis(truth, places.astype(np.int64), 1) >= least[:, None]
        recall[name] = float(hits.sum() / K / len(folded))
    rng, caches = np.random.default_rng(0), np.zeros(CACHES // 8)
    order, work = list(named), len(history) * len(folded)
    for turn in range(rounds if work > SHORT else 3 * rounds):
        rng.shuffle(order)
        for name in order:
            if turn >= 1 and work > SLOW.get(name, np.inf):
                continue
            caches += 1  # a request finds nothing of its user in the caches, whichever way came before
            begin = time.thread_time()
            named[name](history, folded)
            seconds[name].append(time.thread_time() - begin)
    middle = {name: float(np.median(took)) for name, took in seconds.items()}
    fastest = min(middle[name] for name in EXACT if name in middle)
    for name in named:
        yield {
            "method": name,
            "ms": round(1000 * middle[name], 3),
            "recall": round(recall[name], 4),
            "speedup_vs_exact": round(middle["exact fp32"] / middle[name], 2),
            "speedup_vs_fastest_exact": round(fastest / middle[name], 2),
            "bytes_per_item": searches.bytes_per_item(world, name),
        }


def _processor() -> str:
    flags = set()
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
        flags = set(text.split("flags", 1)[1].split("\n", 1)[0].split())
        name = text.split("model name", 1)[1].split("\n", 1)[0].strip(": \t")
    except (OSError, IndexError):
        name = platform.processor()
    return " ".join([name, *(flag for flag in ("avx2", "avx512f", "avx512_vnni") if flag in flags)])


def main() -> None:
    """Print one JSON line, and the figures as a table before it without --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="some of the methods, separated by semicolons")
    parser.add_argument("--dims", default="", help="dims of the hard keys, separated by commas")
    options = parser.parse_args()
    only = tuple(options.only.split(";")) if options.only else ()
    if options.quick:
        result = run((500, 5_000), (1, 20), (32,), rounds=2, items=5_000, only=only)
    else:
        dims = tuple(int(dim) for dim in options.dims.split(",")) if options.dims else DIMS
        result = run(rounds=options.rounds, dims=dims, only=only)
    if not options.json:
        for case in result["cases"]:
            print(
                f"{case['keys']:>7} d {case['dim']:>3} l {case['length']:>6} t {case['candidates']:>3} {case['method']:>27}"
                f" {case['ms']:9.3f} ms  recall {case['recall']:.4f}  x{case['speedup_vs_exact']:.2f}"
                f"  x{case['speedup_vs_fastest_exact']:.2f} of the fastest exact"
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
