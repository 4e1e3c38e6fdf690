"""Items and queries of a request as rows of the bundle's mapped tables; those that it does not know stand beside them.

Letters: l ids, m of them unknown to the bundle, d width, s what tiers compare. Nothing is copied: rows of the tables are
what everything after this reads. An item that the bundle does not know is encoded from its Feast content, a query from its
words; the last of them are kept for a while, since encoding a text may cost more than the rest of a request.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from features.record import entity_id, query_text
from model.bundle import Bundle, Table
from model.nn.content import contents, text_encoder, tokens, type_of
from model.nn.modalities import ItemInputs
from model.nn.tiers import compared
from model.search.keys import Coded, Column, Floats, Parts, Rows

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound=np.generic)

Ids = NDArray[np.uint64]
KEEP_S = 60.0
"""How long the encoding of an item's content is kept; an item that has no content is asked for again after a second."""
MOST = 20_000
MOST_PART = 1e4
"""No part that was trained comes near it: content that gives more says nothing."""
One = tuple[Floats, bool, int]
"""A part and below it the unit vectors that tiers compare [1 + s, d], whether anything is known of it, and its type."""
Encoded = tuple[Coded, NDArray[np.bool_], Rows, Floats]
"""The same of several, what tiers compare [s, m, d] at the end."""
_BLANK: dict[str, Any] = {"title": "", "category": None, "brand": None, "attributes": "{}"}


@dataclass(frozen=True)
class Known:
    """Rows [l] of ids in `parts`; the last m rows are those of `cold`, of which `content` [m] says what is known and
    `types` [m] what they are (`model.bundle.Types`). alike: of the same rows, the s that tiers compare."""

    parts: Parts
    rows: tuple[Rows, ...]
    cold: Ids
    content: NDArray[np.bool_]
    types: Rows
    alike: tuple[Column, ...]

    def known(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows stand for something known."""
        size = len(self.parts.table.parts)
        found: NDArray[np.bool_] = rows > 0
        late = rows >= size
        if late.any():
            found[late] = self.content[rows[late] - size]
        return found

    def take(self, column: NDArray[S], rows: Rows) -> NDArray[S]:
        """A column of the table [n, ...] at rows; row 0 stands for what the table does not have."""
        found: NDArray[S] = np.asarray(column)[np.where(rows < len(column), rows, 0)]
        return found

    def of_table(self, column: Rows, rows: Rows) -> Rows:
        """Types: a column of the table [n] at rows, and those of what the table does not have."""
        found = self.take(column, rows)
        late = rows >= len(column)
        if late.any():
            found[late] = self.types[rows[late] - len(column)]
        return found


class Contents(Protocol):
    """Where contents of items and words of queries are read (`Online`, or history)."""

    def items(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        """Contents by unsigned ids."""

    def queries(self, ids: Sequence[int]) -> list[str | None]:
        """Words by unsigned ids."""


class Source(Protocol):
    """Reads of contents (`Store`)."""

    @property
    def online(self) -> Contents:
        """Where they are read."""

    def ask(self, read: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """The result of a read; an exception where it does not come."""


class Entities:
    """Encodes what a bundle does not know; safe for threads."""

    def __init__(self, bundle: Bundle, store: Source) -> None:
        self._bundle, self._store = bundle, store
        self._encoder = text_encoder(bundle.manifest["encoder"])
        self._items, self._queries = Kept(), Kept()

    def warm(self) -> None:
        """Let the text encoder load what it loads at its first text."""
        self._encoder.encode(["warm"])

    def items(self, history: Ids, *ids: Ids) -> Known:
        """Rows of items; an item of the history of which nothing is known counts as none, as in training."""
        found = _rows(self._bundle.items, (history, *ids), self._encode_items)
        if len(found.cold) and not found.content.all():
            found.rows[0][~found.known(found.rows[0])] = 0
        return found

    def queries(self, asked: str | None, *ids: Ids) -> Known:
        """Rows of queries; the words of `asked` are at hand."""
        return _rows(self._bundle.queries, ids, lambda cold: self._encode_queries(cold, asked))

    def inputs(self, rows: list[dict[str, Any] | None], places: NDArray[np.int64] | None = None) -> ItemInputs:
        """The item encoder's inputs of Feast contents; places: rows of the id table, 0 (unknown) if absent."""
        spec = self._bundle.spec
        content = contents([row or _BLANK for row in rows], self._encoder, spec.attribute_rows, spec.image_width)
        return ItemInputs(
            torch.zeros(len(rows), dtype=torch.long) if places is None else torch.from_numpy(places),
            torch.from_numpy(content.attributes),
            torch.from_numpy(content.text),
            torch.from_numpy(content.text_ok),
            torch.from_numpy(content.image),
            torch.from_numpy(content.image_ok),
        )

    def _encode_items(self, cold: Ids) -> Encoded:
        def encode(missing: list[int]) -> list[One]:
            try:
                rows = self._store.ask(self._store.online.items, missing)
            except Exception:  # the store is away: these items are unknown for now, the others are scored
                rows = [None] * len(missing)
            with torch.inference_mode():
                parts = self._bundle.model.backbone.parts(self.inputs(rows), torch.zeros(0, 1, dtype=torch.long))
            sides = compared(self._bundle.spec.compared(), parts)
            found = np.stack([parts.item.numpy(), *sides], 1)[1:]
            sane = np.abs(found).max((1, 2)) < MOST_PART  # false for NaN, of which every sum and search would be NaN, too
            found[~sane] = 0
            rows = [row if ok else None for row, ok in zip(rows, sane.tolist(), strict=True)]
            types = [self._bundle.types.number(type_of(row)) if row else 0 for row in rows]
            return [(part, row is not None, kind) for part, row, kind in zip(found, rows, types, strict=True)]

        vectors, known, types = self._items.get(cold.tolist(), encode)
        parts, alike = np.ascontiguousarray(vectors[:, 0]), np.ascontiguousarray(np.moveaxis(vectors[:, 1:], 1, 0))
        return self._bundle.codebooks.code_items(parts), known, types, alike

    def _encode_queries(self, cold: Ids, asked: str | None) -> Encoded:
        own = {entity_id(query_text(asked)): query_text(asked)} if asked and asked.strip() else {}

        def encode(missing: list[int]) -> list[One]:
            elsewhere = [i for i in missing if i not in own]
            texts: dict[int, str | None] = {}
            if elsewhere:
                try:
                    texts = dict(zip(elsewhere, self._store.ask(self._store.online.queries, elsewhere), strict=True))
                except Exception:  # the store is away: behaviours of unknown queries count as without one
                    texts = {}
            words = [own.get(i) or texts.get(i) or "" for i in missing]
            with torch.inference_mode():
                hashed = np.stack([tokens(text, self._bundle.spec.token_rows) for text in words])
                backbone = self._bundle.model.backbone
                parts = backbone.queries(torch.from_numpy(hashed) * backbone.asks).numpy()
            return [(part, bool(text), 0) for part, text in zip(parts[:, None], words, strict=True)]

        vectors, known, types = self._queries.get(cold.tolist(), encode)
        return self._bundle.codebooks.code_queries(vectors[:, 0]), known, types, self._bundle.queries.alike


class Kept:
    """Encodings by id, each for a while."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[One, float]] = {}

    def get(self, ids: list[int], encode: Callable[[list[int]], list[One]]) -> tuple[Floats, NDArray[np.bool_], Rows]:
        """Vectors [m, 1 + s, d], whether anything is known of each [m], and what each is [m]."""
        now, held = time.monotonic(), self._held
        found = {i: kept for i in ids if (kept := held.get(i)) and kept[1] > now}
        missing = [i for i in ids if i not in found]
        if missing:
            for i, one in zip(missing, encode(missing), strict=True):
                found[i] = one, now + (KEEP_S if one[1] else 1.0)
            if len(held) + len(missing) > MOST:
                self._held = held = {}
            held.update((i, found[i]) for i in missing)
        parts, known, types = zip(*(found[i][0] for i in ids), strict=True)
        return np.stack(parts), np.array(known, bool), np.array(types, np.int32)


def _rows(table: Table, ids: tuple[Ids, ...], encode: Callable[[Ids], Encoded]) -> Known:
    """Rows of several lists of ids; unknown ids get the rows after the table's."""
    rows = tuple(table.rows(some) for some in ids)
    missing = [some[found < 0] for some, found in zip(ids, rows, strict=True)]
    if not any(len(some) for some in missing):
        none = np.empty(0, np.uint64), np.empty(0, bool), np.empty(0, np.int32)
        return Known(Parts(table.coded), rows, *none, tuple(Column(side) for side in np.asarray(table.alike)))
    cold = np.unique(np.concatenate(missing))
    coded, known, types, alike = encode(cold)
    for found, late in zip(rows, missing, strict=True):
        found[found < 0] = len(table.parts) + np.searchsorted(cold, late)
    sides = tuple(map(Column, np.asarray(table.alike), alike))
    return Known(Parts(table.coded, coded), rows, cold, known, types, sides)
