"""The straightforward training step: every example carries its own padded copy of its user's history, vectorised by torch.

The same click model, weights and arithmetic as `model.train.ctr.score`, without what makes that fast: each behaviour of
each example is encoded anew, keys and projections are written out, nothing that repeats is shared.
Letters: t examples (moments), c candidates, l behaviours of the longest history, h heads, e width of a head, d width,
k places.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.nn.attention import TargetAttention, gap_buckets
from model.nn.click import ClickModel, Evidence
from model.nn.features import plain
from model.nn.inputs import History, Interest, Seen
from model.nn.modalities import ItemEncoder
from model.nn.tiers import BINS, DAYS
from model.train.dataset import Dataset
from model.train.moments import Moments
from model.train.popularity import Popularity

Ints = NDArray[np.int64]


def score(
    model: ClickModel, dataset: Dataset, vocabulary: Ints, moments: Sequence[Moments], popularity: Popularity
) -> Tensor:
    """Log-odds [t, c] of moments that all have c candidates; what is padding is to be ignored."""
    backbone = model.backbone
    ends = [dataset.histories.offsets[m.user] + int(n) for m in moments for n in m.prefix]
    lengths = [min(int(n), backbone.history or int(n)) for m in moments for n in m.prefix]
    places = np.stack([np.arange(end - max(lengths), end) for end in ends])  # [t, l], the newest last
    real = places >= (np.array(ends) - np.array(lengths))[:, None]
    places = places.clip(min=0)
    records = dataset.histories.records
    item_rows, query_rows = dataset.item_rows[places] * real, dataset.query_rows[places] * real
    time, kind = (torch.from_numpy(records[name][places].astype(np.int64)) for name in ("time", "kind"))
    now = torch.from_numpy(np.concatenate([m.now for m in moments]))
    candidates, asked = (np.concatenate([getattr(m, name) for m in moments]) for name in ("items", "queries"))

    (browsed, *past), (item, *wanted) = (_items(model, dataset, vocabulary, rows) for rows in (item_rows, candidates))
    keys, query = browsed + _queries(model, dataset, query_rows), _queries(model, dataset, asked)
    gap, mask = (now.unsqueeze(1) - time).clamp(min=0), torch.from_numpy(real)
    attention = backbone.attention
    with torch.no_grad():
        ranked = torch.einsum("tcd,tld->tcl", attention.fold(item + query), keys)
        ranked = (ranked + attention.bias(gap, kind).unsqueeze(1)).masked_fill(~mask.unsqueeze(1), -torch.inf)
        best = ranked.topk(min(backbone.retrieved, ranked.shape[2]), 2).indices
    latest = torch.arange(keys.shape[1])[-backbone.recent :].expand(*item.shape[:2], -1)
    long = _attend(attention, item + query, keys, gap, kind, mask, best)
    recent = _attend(model.recent, item + query, keys, gap, kind, mask, latest)

    flat, begin = torch.from_numpy(real.ravel()), torch.from_numpy(np.cumsum([0, *lengths[:-1]]))
    sides = torch.from_numpy(item_rows), torch.from_numpy(query_rows), time, kind
    own = History._make(side.flatten()[flat] for side in sides)
    seen = Seen(begin, begin + torch.tensor(lengths), now)
    known = popularity.features(candidates, now.numpy())
    types = torch.from_numpy(dataset.types + 1)
    source = torch.from_numpy(np.concatenate([m.source for m in moments]))
    told = plain(torch.from_numpy(candidates), torch.from_numpy(asked), known, own, seen, types, source)
    bias = model.item_bias(torch.from_numpy(vocabulary[candidates])).squeeze(-1)
    counts = torch.from_numpy(item_rows > 0)
    alike = [_tiers(one, other, gap, counts) for one, other in zip(wanted, past, strict=True)]
    return model.combine(Evidence(long, recent, item, query, told, torch.cat([item[..., :0].detach(), *alike], -1)), bias)


@torch.no_grad()
def _tiers(item: Tensor, browsed: Tensor, gap: Tensor, counts: Tensor) -> Tensor:
    """Histograms [t, c, r b] of cosines of candidates [t, c, d] and behaviours' items [t, l, d] that count [t, l]."""
    cosines = torch.einsum("tcd,tld->tcl", F.normalize(item, dim=-1), F.normalize(browsed, dim=-1))
    at = cosines.clamp(min=0) * (BINS - 1)
    below = at.floor().clamp(max=BINS - 2)
    rows = []
    for days in (*DAYS, np.inf):
        one = ((gap <= days * 86_400_000) & counts).unsqueeze(1).float()
        empty, place, upper = torch.zeros(*item.shape[:2], BINS), below.long(), at - below
        rows.append(empty.scatter_add(2, place, one * (1 - upper)).scatter_add(2, place + 1, one * upper))
    return torch.cat(rows, -1).log1p() / 5


def _items(model: ClickModel, dataset: Dataset, vocabulary: Ints, rows: Ints) -> list[Tensor]:
    """Item parts of rows (any shape), each encoded by itself, and what tiers compare."""
    flat = rows.ravel()
    found, modalities = model.backbone.items.encode(dataset.item_inputs(np.maximum(flat, 1), vocabulary))
    none = torch.from_numpy(flat == 0).unsqueeze(1)
    named = dict(zip(ItemEncoder.modalities, modalities.detach().unbind(1), strict=True), item=found.detach())
    parts = torch.where(none, model.backbone.no_item, found)
    return [x.view(*rows.shape, -1) for x in (parts, *(named[name] for name in model.tiers))]


def _queries(model: ClickModel, dataset: Dataset, rows: Ints) -> Tensor:
    """Query parts of rows (any shape), each encoded by itself."""
    padded = np.concatenate([np.zeros_like(dataset.tokens[:1]), dataset.tokens])
    found: Tensor = model.backbone.queries(torch.from_numpy(padded[rows.ravel()]))
    return found.view(*rows.shape, -1)


def _attend(
    attention: TargetAttention, targets: Tensor, keys: Tensor, gap: Tensor, kind: Tensor, mask: Tensor, places: Tensor
) -> Interest:
    """Targets [t, c, d] over places [t, c, k] of keys [t, l, d]."""
    scale = (targets.shape[-1] / len(attention.w_q)) ** -0.5
    q = torch.einsum("tcd,hde->tche", targets, attention.w_q) * scale
    k, v = (torch.einsum("tld,hde->tlhe", keys, w) for w in (attention.w_k, attention.w_v))
    bias = attention.gap_bias.T[gap_buckets(gap)] + attention.kind_bias.T[kind]  # [t, l, h]
    row = torch.arange(len(targets)).view(-1, 1, 1)
    logits = torch.einsum("tche,tckhe->tckh", q, k[row, places]) + bias[row, places]
    logits = logits.masked_fill(~mask[row, places].unsqueeze(-1), -torch.inf)
    logits = torch.cat([torch.zeros_like(logits[:, :, :1]), logits], 2)  # the null behaviour
    weights = torch.softmax(logits, 2)[:, :, 1:]
    out = torch.einsum("tckh,tckhe->tche", weights, v[row, places]).flatten(2) @ attention.w_o
    return Interest(out, torch.logsumexp(logits, 2), weights.transpose(2, 3))


def loss(
    model: ClickModel, dataset: Dataset, vocabulary: Ints, moments: Sequence[Moments], popularity: Popularity
) -> Tensor:
    """Mean log loss of the moments' candidates."""
    scores = score(model, dataset, vocabulary, moments, popularity)
    labels, source, position, real = (
        torch.from_numpy(np.concatenate([getattr(m, name) for m in moments]))
        for name in ("labels", "source", "position", "real")
    )
    scores = scores + model.offset(source.unsqueeze(1).expand_as(scores), position)
    return F.binary_cross_entropy_with_logits(scores[real], labels[real])
