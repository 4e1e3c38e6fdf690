"""The arrays that training and evaluation read: contents, histories as rows, popularity, vocabulary.

Letters: n items, q queries, u users, l behaviours of all users, a and k attribute and token slots. Item row 0 and query row
0 stand for "none", so tables of contents have a row less than what is indexed. Everything is as of `until_ms`.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from features.history import ITEMS, Histories, milliseconds, newest_items, read, read_queries, read_sequences
from features.record import KIND_BROWSE
from model.config import ModelConfig, TrainConfig
from model.nn.content import Contents, contents, encode_once, text_encoder, tokens, type_of
from model.nn.inputs import Frozen, History
from model.nn.modalities import ItemInputs
from model.nn.spec import Spec

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Items sorted by id: row i + 1 is item_ids[i]. Users: histories.of(u) is records[offsets[u]:offsets[u + 1]]."""

    histories: Histories
    item_ids: NDArray[np.uint64]
    item_keys: list[str]
    types: Ints  # [n + 1] code of what an item is (`model.nn.content.type_of`); -1 none
    type_names: list[str]  # of the codes
    titles: Ints  # [n + 1] code of the title: equal titles are not each other's negatives
    listed: Ints  # [n + 1] ms when each item first came up, in an `item` event or a browse: from then on it is on sale
    items: Contents
    query_ids: NDArray[np.uint64]
    query_texts: list[str]
    tokens: Ints  # [q, k]
    item_rows: Ints  # [l] of every behaviour; 0: a search
    query_rows: Ints  # [l]
    basket_starts: Ints  # [l] the place in its user's history where the behaviour's session begins
    encoder: str
    text_width: int
    image_width: int
    token_rows: int  # of the hashed tables whose rows are written here
    attribute_rows: int
    version: str | None = None  # of history; None: as it was when this was read

    def history(self, user: int) -> History:
        """A user's whole history as tensors; a prefix is a number of its first behaviours."""
        here = slice(self.histories.offsets[user], self.histories.offsets[user + 1])
        records = self.histories.records[here]
        return History(
            torch.from_numpy(self.item_rows[here]),
            torch.from_numpy(self.query_rows[here]),
            torch.from_numpy(records["time"].astype(np.int64)),
            torch.from_numpy(records["kind"].astype(np.int64)),
        )

    def counts(self, until_ms: int, since_ms: int = 0) -> NDArray[np.float64]:
        """Browses of each item row [n + 1] with since <= time < until."""
        records = self.histories.records
        wanted = (records["kind"] == KIND_BROWSE) & (records["time"] < until_ms) & (records["time"] >= since_ms)
        return np.bincount(self.item_rows[wanted], minlength=len(self.item_ids) + 1).astype(np.float64)

    def cold(self, before_ms: int) -> Ints:
        """Item rows that nobody browsed before a time, in the order in which they were listed."""
        counts = self.counts(before_ms)
        rows = np.flatnonzero(counts[1:] == 0) + 1
        found: Ints = rows[np.argsort(self.listed[rows], kind="stable")]
        return found

    def cold_share(self, at: Ints, before_ms: int) -> float:
        """Share of browses `at` (places in the records) whose items nobody browsed before a time; 0 where there are none."""
        return float((self.counts(before_ms)[self.item_rows[at]] == 0).mean()) if len(at) else 0.0

    def item_inputs(self, rows: Ints, vocabulary: Ints) -> ItemInputs:
        """Encoder inputs of item rows [i] (each > 0), under a vocabulary [n + 1] of id-table rows."""
        here = rows - 1
        content = self.items
        return ItemInputs(
            torch.from_numpy(vocabulary[rows]),
            torch.from_numpy(content.attributes[here]),
            torch.from_numpy(content.text[here]),
            torch.from_numpy(content.text_ok[here]),
            torch.from_numpy(content.image[here]),
            torch.from_numpy(content.image_ok[here]),
        )

    def frozen(self, items: Ints, queries: Ints) -> Frozen:
        """Types and frozen text vectors of item and query rows (each > 0), for search units that read contents."""
        texts = np.concatenate([np.zeros((1, self.text_width), np.float32), self.items.text[items - 1]])
        asked = query_vectors(self.encoder, tuple(self.query_texts))[queries]
        return Frozen(
            torch.from_numpy(self.types[np.concatenate([[0], items])]),
            F.normalize(torch.from_numpy(texts), dim=1),
            F.normalize(torch.from_numpy(np.concatenate([np.zeros((1, self.text_width), np.float32), asked])), dim=1),
        )


@lru_cache(maxsize=4)
def query_vectors(encoder: str, texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Frozen vectors [q + 1, w] of query texts; row 0: none. Kept: training runs of one process ask the same."""
    found = text_encoder(encoder)
    if not texts:
        return np.zeros((1, found.width), np.float32)
    return np.concatenate([np.zeros((1, found.width), np.float32), encode_once(found, texts)])


def vocabulary(dataset: Dataset, until_ms: int, train: TrainConfig) -> Ints:
    """Id-table rows [n + 1] of items seen often enough before `until_ms`, in the order of their stable ids; others are 0."""
    known = np.flatnonzero(dataset.counts(until_ms) >= train.min_count)
    known = known[known > 0]
    rows = np.zeros(len(dataset.item_ids) + 1, np.int64)
    rows[known] = np.arange(1, len(known) + 1)
    return rows


SESSION_GAP_MS = 600_000
"""Behaviours less than this apart are one session (a basket with its searches): a target sees nothing of its own."""


def sessions(histories: Histories) -> Ints:
    """[l] for each behaviour, the place in its user's history where its session begins."""
    starts = np.zeros(len(histories.records), np.int64)
    for user in range(len(histories.user_ids)):
        here = slice(histories.offsets[user], histories.offsets[user + 1])
        times = histories.records["time"][here]
        first = np.ones(len(times), bool)
        first[1:] = times[1:] - times[:-1] > SESSION_GAP_MS
        begins = np.flatnonzero(first)
        starts[here] = begins[np.cumsum(first) - 1]
    return starts


def lookup(sorted_ids: NDArray[np.uint64], ids: NDArray[np.uint64]) -> Ints:
    """1 + the place of each id [l] in sorted_ids [n]; 0 where it is not."""
    if not len(sorted_ids):
        return np.zeros(len(ids), np.int64)
    place = np.searchsorted(sorted_ids, ids).clip(max=len(sorted_ids) - 1)
    return np.where(sorted_ids[place] == ids, place + 1, 0)


def _codes(names: list[str | None]) -> Ints:
    """Codes [n + 1] of names, -1 for none and for row 0."""
    place = {name: i for i, name in enumerate(sorted({name for name in names if name}))}
    return np.array([-1, *(place[name] if name else -1 for name in names)], np.int64)


def _listed(came: pa.Table, item_ids: NDArray[np.uint64], histories: Histories, item_rows: Ints) -> Ints:
    first = np.full(len(item_ids) + 1, np.iinfo(np.int64).max)
    if len(came):
        ids = came["item"].to_numpy().view(np.uint64)
        np.minimum.at(first, lookup(item_ids, ids), milliseconds(came["event_timestamp"]))
    seen = histories.records["kind"] == KIND_BROWSE
    np.minimum.at(first, item_rows[seen], histories.records["time"][seen].astype(np.int64))
    first[0] = np.iinfo(np.int64).max
    return first


def load(home: Path, until_ms: int, config: ModelConfig, version: str | None = None, spec: Spec | None = None) -> Dataset:
    """Read history (or one version of it) as it stood before `until_ms`; encode distinct texts once (in `<home>/cache`).

    spec: of the model that reads it: its tables and its width of pictures, not the configuration's and the commonest.
    """
    histories = read_sequences(home, until_ms, version=version)
    came = read(home, ITEMS, until_ms=until_ms, version=version)
    rows = newest_items(came).to_pylist()
    for row in rows:
        row["id"] = row["item"] % (1 << 64)
    rows.sort(key=lambda row: row["id"])
    queries = sorted({(row["query"] % (1 << 64), row["text"]) for row in read_queries(home, until_ms, version).to_pylist()})
    encoder = text_encoder(config.encoder)
    widths = Counter(len(row["image_vector"]) // 4 for row in rows if row["image_vector"])
    commonest = max(widths, key=lambda width: (widths[width], width), default=0)
    image_width = spec.image_width if spec else commonest  # pictures of other widths are not read
    shapes = spec or config
    item_ids = np.array([row["id"] for row in rows], np.uint64)
    query_ids = np.array([query for query, _ in queries], np.uint64)
    types = [type_of(row) for row in rows]
    item_rows = lookup(item_ids, histories.records["item"])
    return Dataset(
        histories=histories,
        item_ids=item_ids,
        item_keys=[row["item_id"] for row in rows],
        types=_codes(types),
        type_names=sorted({name for name in types if name}),
        titles=_codes([row["title"] for row in rows]),
        listed=_listed(came, item_ids, histories, item_rows),
        items=contents(rows, encoder, shapes.attribute_rows, image_width, home / "cache" / f"{encoder.name}.npz"),
        query_ids=query_ids,
        query_texts=[text for _, text in queries],
        tokens=np.stack([tokens(text, shapes.token_rows) for _, text in queries]) if queries else np.zeros((0, 8), np.int64),
        item_rows=item_rows,
        query_rows=lookup(query_ids, histories.records["query"]),
        basket_starts=sessions(histories),
        encoder=encoder.name,
        text_width=encoder.width,
        image_width=image_width,
        token_rows=shapes.token_rows,
        attribute_rows=shapes.attribute_rows,
        version=version,
    )
