"""Pretraining of the search unit on pairs that users went on to, before t1 (arXiv 2407.10714)."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.publish import point, publish
from model.compute import tune
from model.config import Config, Windows
from model.nn.psu import PSU, alignment_loss, next_pair_loss, relevance_loss
from model.nn.spec import Spec
from model.train import checkpoint
from model.train.batch import Encoded, encode
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import Negatives, browses, session_time
from model.train.optimise import Optimiser

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]

LEAST = 5  # behaviours before a pretraining target
CONTRASTED = 256  # items and pairs of a contrastive batch


def spec_of(config: Config, dataset: Dataset, ids: int, search: str = "topk") -> Spec:
    """The shapes of a model for a data set with `ids` known items."""
    model = config.model
    return Spec(
        model.dim,
        model.heads,
        model.retrieved,
        model.recent,
        search,
        ids + 1,
        model.attribute_rows,
        model.token_rows,
        dataset.text_width,
        dataset.image_width,
    )


def pretrain(home: Path, *, windows: Windows, config: Config | None = None, seed: int = 0) -> dict[str, Any]:
    """Train and publish a PSU from what happened before t1; the pointer moves to it.

    Returns {"version", "losses": {objective: [mean by epoch]}, "seconds", "data"}.
    """
    tune()
    config = config or Config()
    begin = time.monotonic()
    dataset = load(home, windows.t1, config.model)
    rows = vocabulary(dataset, windows.t1, config.train)
    torch.manual_seed(seed)
    spec = spec_of(config, dataset, int(rows.max(initial=0)))
    psu = spec.psu()
    losses = _fit(psu, dataset, rows, config, windows.t1, seed)
    facts = {
        "seed": seed,
        "windows": windows.as_dates(),
        "config": config.as_dict(),
        "encoder": dataset.encoder,
        "losses": losses,
        "data": {
            "users": len(dataset.histories.user_ids),
            "behaviours": len(dataset.histories.records),
            "items": len(dataset.item_ids),
            "known_items": int((rows > 0).sum()),
        },
    }

    def build(folder: Path) -> None:
        checkpoint.write(folder, spec, psu, checkpoint.ids_of(dataset, rows), facts)

    def check(folder: Path) -> None:
        found = checkpoint.read(folder)
        found.spec.psu().load_state_dict(found.weights)

    version = publish(home / "psu", build, check)
    point(home / "psu", version)
    return {"version": version, "losses": losses, "seconds": round(time.monotonic() - begin, 1), "data": facts["data"]}


def _fit(psu: PSU, dataset: Dataset, rows: Ints, config: Config, until: int, seed: int) -> dict[str, list[float]]:
    train, rng = config.train, np.random.default_rng(seed)
    places = {u: p for u in range(len(dataset.histories.user_ids)) if len(p := browses(dataset, u, 0, until, LEAST))}
    users = np.array(sorted(places), np.int64)
    steps = train.psu_epochs * -(-len(users) // train.users)
    optimiser = Optimiser(psu, train.lr, train.table_lr, steps)
    draw = _Pairs(dataset, until)
    means: dict[str, list[float]] = {"next_pair": [], "alignment": [], "relevance": []}
    for epoch in range(train.psu_epochs):
        sums: dict[str, list[float]] = {name: [] for name in means}
        order = rng.permutation(users)
        for start in range(0, len(order), train.users):
            chosen = [
                (int(u), np.sort(rng.choice(places[u], min(train.targets, len(places[u])), replace=False)))
                for u in order[start : start + train.users].tolist()
            ]
            parts = _losses(psu, dataset, rows, config, chosen, draw, rng)
            optimiser.step(
                train.next_pair * parts["next_pair"]
                + train.alignment * parts["alignment"]
                + train.relevance * parts["relevance"]
            )
            for name, value in parts.items():
                sums[name].append(value.item())
        for name, found in sums.items():
            means[name].append(round(float(np.mean(found)), 4))
        log.info("psu epoch %d: %s", epoch + 1, {name: values[-1] for name, values in means.items()})
    return means


class _Pairs:
    """Draws negative (item, query) pairs: past pairs of the population, and hard ones that keep half of the pair."""

    def __init__(self, dataset: Dataset, until: int) -> None:
        records = dataset.histories.records
        pool = np.flatnonzero((dataset.item_rows > 0) & (records["time"] < until))
        self.items, self.queries = dataset.item_rows[pool], dataset.query_rows[pool]
        self.asked = np.unique(self.queries[self.queries > 0])
        self.alike = Negatives(dataset, until)
        counts = dataset.counts(until)
        self.log_q = np.log((counts + 1) / (counts.sum() + len(counts)))

    def draw(
        self, rng: np.random.Generator, item: int, query: int, session: Ints, n: int, batch: tuple[Ints, Ints]
    ) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Candidates [1 + n] items, queries, and which count; the first is the true pair.

        Two keep the query and change the item, two keep the item and change the query (where there is one), a third comes
        from the batch's other positives, the rest from the population by popularity.
        """
        hard = self.alike.alike(rng, item, 2)
        other = rng.choice(self.asked, 2) if query and len(self.asked) else np.zeros(0, np.int64)
        from_batch = rng.integers(0, len(batch[0]), n // 3)
        pool = rng.integers(0, len(self.items), n - len(hard) - len(other) - len(from_batch))
        items = np.concatenate([[item], hard, np.full(len(other), item), batch[0][from_batch], self.items[pool]])
        queries = np.concatenate([[query], np.full(len(hard), query), other, batch[1][from_batch], self.queries[pool]])
        counts = ~(np.isin(items, session) & ((items != item) | (queries == query)))
        counts[0] = True
        return items, queries, counts


def _losses(
    psu: PSU,
    dataset: Dataset,
    rows: Ints,
    config: Config,
    chosen: list[tuple[int, Ints]],
    draw: _Pairs,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    starts, train = dataset.histories.offsets, config.train
    at = np.concatenate([starts[user] + places for user, places in chosen])
    batch = (dataset.item_rows[at], dataset.query_rows[at])
    candidates = []
    for user, places in chosen:
        here = slice(starts[user], starts[user + 1])
        found = []
        for place in places.tolist():
            begins = dataset.basket_starts[here]
            session = dataset.item_rows[here][begins == begins[place]]
            pair = int(dataset.item_rows[here][place]), int(dataset.query_rows[here][place])
            found.append(draw.draw(rng, *pair, session, train.negatives, batch))
        candidates.append(tuple(np.stack(column) for column in zip(*found, strict=True)))
    lengths = [(user, int(dataset.basket_starts[starts[user] + places].max())) for user, places in chosen]
    encoded = encode(
        psu.backbone,
        dataset,
        rows,
        lengths,
        [c[0] for c in candidates],
        [c[1] for c in candidates],
        train.id_dropout,
        rng,
    )
    next_pair = []
    for (user, places), (items, queries, counts), (_, length) in zip(chosen, candidates, lengths, strict=True):
        prefix = dataset.basket_starts[starts[user] + places]
        now = np.array([session_time(dataset, user, int(p)) for p in prefix], np.int64)
        scores = psu.score(
            encoded.item(items),
            encoded.query(queries),
            encoded.history(dataset, user, length),
            encoded.parts,
            torch.from_numpy(prefix),
            torch.from_numpy(now),
        )
        log_q = torch.from_numpy(draw.log_q[items]).float()
        next_pair.append(next_pair_loss(scores, log_q, torch.from_numpy(counts)))
    return {
        "next_pair": torch.stack(next_pair).mean(),
        "alignment": _align(psu, dataset, rows, encoded, rng),
        "relevance": _relate(dataset, encoded, lengths, rng),
    }


def _align(psu: PSU, dataset: Dataset, rows: Ints, encoded: Encoded, rng: np.random.Generator) -> torch.Tensor:
    """Over distinct items of the batch."""
    some = rng.choice(encoded.item_rows, min(CONTRASTED, len(encoded.item_rows)), replace=False)
    vectors, present = psu.backbone.items.modality_vectors(dataset.item_inputs(some, rows))
    titles = torch.from_numpy(dataset.titles[some])
    return alignment_loss(vectors, present, titles.unsqueeze(0) == titles.unsqueeze(1))


def _relate(dataset: Dataset, encoded: Encoded, lengths: list[tuple[int, int]], rng: np.random.Generator) -> torch.Tensor:
    """Over behaviours of the batch that had both an item and a query."""
    starts = dataset.histories.offsets
    seen = np.concatenate([np.arange(starts[user], starts[user] + length) for user, length in lengths])
    both = seen[(dataset.item_rows[seen] > 0) & (dataset.query_rows[seen] > 0)]
    some = rng.choice(both, min(CONTRASTED, len(both)), replace=False) if len(both) else both
    items, queries = dataset.item_rows[some], dataset.query_rows[some]
    parts = encoded.parts
    return relevance_loss(
        parts.query[encoded.query(queries)],
        parts.item[encoded.item(items)],
        torch.from_numpy(queries),
        torch.from_numpy(items),
    )
