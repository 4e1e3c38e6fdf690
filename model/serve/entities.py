"""Items and queries of a request as rows of the bundle's mapped tables; those that it does not know stand beside them.

Letters: l ids, m of them unknown to the bundle, d width, s what tiers compare. Nothing is copied: rows of the tables are
what everything after this reads. An item that the bundle does not know is encoded from its Feast content, a query from its
words; the last of them are kept for a while, since encoding a text may cost more than the rest of a request.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from features.record import entity_id, query_text
from model.bundle import Bundle, Table
from model.nn.content import contents, text_encoder, tokens, type_of
from model.nn.modalities import ItemInputs
from model.nn.tiers import compared
from model.search.keys import Coded, Column, Floats, Parts, Rows
from model.serve.kept import Kept, One

T = TypeVar("T")
S = TypeVar("S", bound=np.generic)

Ids = NDArray[np.uint64]
MOST_PART = 1e4
"""No part that was trained comes near it: content that gives more says nothing."""
_BLANK: dict[str, Any] = {"title": "", "category": None, "brand": None, "attributes": "{}"}


class Encoded(NamedTuple):
    """Of m ids their parts, what is known [m], types [m], what tiers compare [s, m, d], what was not read [m], and why in
    words ("": all was)."""

    coded: Coded
    known: NDArray[np.bool_]
    types: Rows
    alike: Floats
    unread: NDArray[np.bool_]
    away: str


@dataclass(frozen=True)
class Known:
    """Rows [l] of ids in `parts`; the last m rows are those of `cold`, of which `content` [m] says what is known and
    `types` [m] what they are (`model.bundle.Types`). alike: of the same rows, the s that tiers compare. late [m]: what the
    store did not say in time, and `away` why."""

    parts: Parts
    rows: tuple[Rows, ...]
    cold: Ids
    content: NDArray[np.bool_]
    types: Rows
    alike: tuple[Column, ...]
    late: NDArray[np.bool_]
    away: str = ""

    def known(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows stand for something known."""
        return self._flags(rows > 0, self.content, rows)

    def unread(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows stand for something that the store did not tell of."""
        return self._flags(np.zeros(len(rows), bool), self.late, rows)

    def _flags(self, found: NDArray[np.bool_], cold: NDArray[np.bool_], rows: Rows) -> NDArray[np.bool_]:
        size = len(self.parts.table.parts)
        beside = rows >= size
        if beside.any():
            found[beside] = cold[rows[beside] - size]
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

    def contents(self, read: Callable[[Sequence[int]], list[T]], ids: Sequence[int]) -> tuple[list[T], str]:
        """What a read says of ids, or of the first of them and in words why of no more."""


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
        away = ""

        def encode(missing: list[int]) -> list[One]:
            nonlocal away
            found, away = self._store.contents(self._store.online.items, missing)
            read = np.arange(len(missing)) < len(found)  # the others are unknown for now, and all else is scored
            rows = [*found, *[None] * (len(missing) - len(found))]
            with torch.inference_mode():
                parts = self._bundle.model.backbone.parts(self.inputs(rows), torch.zeros(0, 1, dtype=torch.long))
            sides = compared(self._bundle.spec.compared(), parts)
            vectors = np.stack([parts.item.numpy(), *sides], 1)[1:]
            sane = np.abs(vectors).max((1, 2)) < MOST_PART  # false for NaN, of which every sum and search would be NaN, too
            vectors[~sane] = 0
            rows = [row if ok else None for row, ok in zip(rows, sane.tolist(), strict=True)]
            types = [self._bundle.types.number(type_of(row)) if row else 0 for row in rows]
            known = [row is not None for row in rows]
            return list(map(One, vectors, known, types, read.tolist()))

        vectors, known, types, read = self._items.get(cold.tolist(), encode)
        parts, alike = np.ascontiguousarray(vectors[:, 0]), np.ascontiguousarray(np.moveaxis(vectors[:, 1:], 1, 0))
        return Encoded(self._bundle.codebooks.code_items(parts), known, types, alike, ~read, away)

    def _encode_queries(self, cold: Ids, asked: str | None) -> Encoded:
        own: dict[int, str | None] = {entity_id(query_text(asked)): query_text(asked)} if asked and asked.strip() else {}
        away = ""

        def encode(missing: list[int]) -> list[One]:
            nonlocal away
            elsewhere = [i for i in missing if i not in own]
            found, away = self._store.contents(self._store.online.queries, elsewhere)
            texts = dict(zip(elsewhere, found, strict=False)) | own  # behaviours of the others count as without a query
            words = [texts.get(i) or "" for i in missing]
            with torch.inference_mode():
                hashed = np.stack([tokens(text, self._bundle.spec.token_rows) for text in words])
                backbone = self._bundle.model.backbone
                parts = backbone.queries(torch.from_numpy(hashed) * backbone.asks).numpy()
            known, read = map(bool, words), [i in texts for i in missing]
            return list(map(One, parts[:, None], known, [0] * len(missing), read))

        vectors, known, types, read = self._queries.get(cold.tolist(), encode)
        coded = self._bundle.codebooks.code_queries(vectors[:, 0])
        return Encoded(coded, known, types, self._bundle.queries.alike, ~read, away)


def _rows(table: Table, ids: tuple[Ids, ...], encode: Callable[[Ids], Encoded]) -> Known:
    """Rows of several lists of ids; unknown ids get the rows after the table's."""
    rows = tuple(table.rows(some) for some in ids)
    missing = [some[found < 0] for some, found in zip(ids, rows, strict=True)]
    if not any(len(some) for some in missing):
        none, no = np.empty(0, np.uint64), np.empty(0, bool)
        sides = tuple(Column(side) for side in np.asarray(table.alike))
        return Known(Parts(table.coded), rows, none, no, np.empty(0, np.int32), sides, no)
    cold = np.unique(np.concatenate(missing))
    found_cold = encode(cold)
    for found, late in zip(rows, missing, strict=True):
        found[found < 0] = len(table.parts) + np.searchsorted(cold, late)
    sides = tuple(map(Column, np.asarray(table.alike), found_cold.alike))
    return Known(
        *(Parts(table.coded, found_cold.coded), rows, cold, found_cold.known, found_cold.types),
        *(sides, found_cold.unread, found_cold.away),
    )
