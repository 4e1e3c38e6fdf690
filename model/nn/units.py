"""Search units of peers: one function a unit, all with our own ESU, so that methods differ by what they retrieve alone.

A unit takes the shared attention, how many behaviours it may retrieve, the targets and what they may see, and returns what
attention found. Another unit can live anywhere: `search = "package.module:function"`.

Letters: u users, t moments, c candidates of a moment, n = t c targets, l behaviours, i distinct items of them, k places, d
width, w width of frozen text vectors. Selection has no gradient, as everywhere; ties go to the newer behaviour.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import pairwise

import torch
from torch import Tensor

from model.nn.attention import TargetAttention
from model.nn.inputs import Frozen, History, Interest, Parts, Seen, Targets

Unit = Callable[[TargetAttention, int, Targets, History, Parts, Seen], Interest]
Score = Callable[[slice, slice], Tensor]
"""Scores [t, c, l] of some moments (of one user) and of behaviours; minus infinity: never to be retrieved."""
BITS = 64
TIERS = 20
"""Bins of SimTier's histogram: .1 wide on [-1, 1]."""


def best(score: Score, targets: Targets, seen: Seen, k: int) -> Tensor:
    """Places [n, k] (int32) of the k best-scored behaviours that each target sees, the best first; -1: none."""
    t, c = targets.item.shape
    out = torch.full((t, c, k), -1, dtype=torch.int32)
    with torch.no_grad():
        for moments, behaviours in by_user(seen):
            scores = visible(newer(score(moments, behaviours)), behaviours, seen.end[moments])
            found, place = scores.topk(min(k, scores.shape[-1]), dim=-1)
            place = torch.where(found > -torch.inf, place + behaviours.start, -1)
            out[moments, :, : place.shape[-1]] = place.int()
    return out.view(t * c, k)


def attend(
    attention: TargetAttention, targets: Targets, history: History, parts: Parts, seen: Seen, places: Tensor
) -> Interest:
    """What the ESU makes of places [n, k]."""
    found: Interest = attention(targets.vector, parts, history, seen, places)
    return found


def by_user(seen: Seen) -> list[tuple[slice, slice]]:
    """Stretches of moments that share their begin, and the behaviours that they see between them (users who see any)."""
    cuts = [0, *(torch.nonzero(seen.begin.diff()).flatten() + 1).tolist(), len(seen.begin)]
    spans = [(slice(a, b), slice(int(seen.begin[a]), int(seen.end[a:b].max()))) for a, b in pairwise(cuts) if b > a]
    return [(moments, behaviours) for moments, behaviours in spans if behaviours.stop > behaviours.start]


def visible(scores: Tensor, behaviours: slice, end: Tensor) -> Tensor:
    """Scores [t, c, l] with minus infinity for what comes at or after each moment's end [t]."""
    place = torch.arange(behaviours.start, behaviours.stop)
    return scores.masked_fill(place >= end.view(-1, 1, 1), -torch.inf)


def newer(scores: Tensor) -> Tensor:
    """Scores [t, c, l] (now of 64 bits) among which of equal ones the newer is the greater."""
    return scores.double() + torch.arange(scores.shape[-1], dtype=torch.float64) * 1e-9


def keys(parts: Parts, history: History, behaviours: slice) -> Tensor:
    """Keys [l, d]: item part + query part."""
    found: Tensor = parts.item[history.item[behaviours]] + parts.query[history.query[behaviours]]
    return found


def sim_hard(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """SIM with hard search (arXiv 2006.05639): the newest browses of the target's type, and searches with its query."""
    types = frozen(parts).type

    def score(moments: slice, behaviours: slice) -> Tensor:
        items, queries = history.item[behaviours], history.query[behaviours]
        wanted, asked = types[targets.item[moments]].unsqueeze(-1), targets.query[moments].unsqueeze(-1)
        same = (types[items] == wanted) & (wanted >= 0)
        same |= (items == 0) & (queries == asked) & (asked > 0)
        return torch.zeros(same.shape).masked_fill(~same, -torch.inf)

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def sim_soft(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """SIM with soft search: the greatest inner products of the embeddings themselves, a metric other than the ESU's."""

    def score(moments: slice, behaviours: slice) -> Tensor:
        return targets.vector[moments] @ keys(parts, history, behaviours).T

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def eta(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """ETA (arXiv 2108.04468): the most equal bits of SimHash codes of the current embeddings."""
    turn = directions(targets.vector.shape[-1], BITS)

    def score(moments: slice, behaviours: slice) -> Tensor:
        return equal_bits(targets.vector[moments], keys(parts, history, behaviours), turn)

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def lsh(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """Our own search with SimHash codes in place of exact scores: of keys, and of targets folded by W_Q and W_K."""
    turn = directions(targets.vector.shape[-1], BITS)

    def score(moments: slice, behaviours: slice) -> Tensor:
        folded = attention.fold(targets.vector[moments])
        return equal_bits(folded, keys(parts, history, behaviours), turn)

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def twin(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """TWIN (arXiv 2302.02352): browses only, by the ESU's own metric over item parts and its bias of cross features."""

    def score(moments: slice, behaviours: slice) -> Tensor:
        folded = attention.fold(parts.item[targets.item[moments]])
        gap = (seen.now[moments].unsqueeze(1) - history.time[behaviours]).clamp(min=0)
        bias = attention.bias(gap, history.kind[behaviours].expand_as(gap))
        scores = folded @ parts.item[history.item[behaviours]].T + bias.unsqueeze(1)
        return scores.masked_fill(history.item[behaviours] == 0, -torch.inf)

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def muse(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """MUSE's search unit (arXiv 2512.07216): the greatest cosines of frozen content vectors, of items that have one."""
    return _muse(attention, k, targets, history, parts, seen, _contents(targets, history, parts))


def muse_tier(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """MUSE with SimTier (arXiv 2407.19467): beside the interest, a histogram of the cosines over the whole history."""
    contents = _contents(targets, history, parts)
    found = _muse(attention, k, targets, history, parts, seen, contents)
    counts = torch.zeros(*targets.item.shape, TIERS)
    with torch.no_grad():
        for moments, behaviours in by_user(seen):
            cosines, column = contents(moments, behaviours)
            seen_by = torch.arange(behaviours.start, behaviours.stop) < seen.end[moments].unsqueeze(1)
            times = torch.zeros(len(seen_by), cosines.shape[-1]).scatter_add_(1, column.expand_as(seen_by), seen_by.float())
            there = cosines > -torch.inf
            tier = ((cosines.masked_fill(~there, 0) + 1) * (TIERS / 2)).long().clamp(0, TIERS - 1)
            counts[moments] = counts[moments].scatter_add_(2, tier, times.unsqueeze(1) * there)
    return found._replace(mass=torch.cat([found.mass, counts.log1p() / 5], -1))


Contents = Callable[[slice, slice], tuple[Tensor, Tensor]]
"""Cosines [t, c, i] of some moments' candidates with a user's distinct items, and the column of each behaviour [l]."""


def _contents(targets: Targets, history: History, parts: Parts) -> Contents:
    """Cosines of frozen vectors, minus infinity where one has none; made once a user."""
    text = frozen(parts).text
    has = text.abs().sum(1) > 0
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def found(moments: slice, behaviours: slice) -> tuple[Tensor, Tensor]:
        if moments.start not in made:
            items, column = torch.unique(history.item[behaviours], return_inverse=True)
            wanted = targets.item[moments]
            cosines = (text[wanted] @ text[items].T).masked_fill_(~has[items] | ~has[wanted].unsqueeze(-1), -torch.inf)
            made[moments.start] = cosines, column
        return made[moments.start]

    return found


def _muse(
    attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen, contents: Contents
) -> Interest:
    def score(moments: slice, behaviours: slice) -> Tensor:
        cosines, column = contents(moments, behaviours)
        return cosines[..., column]

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))


def frozen(parts: Parts) -> Frozen:
    """What a unit that reads contents must be given."""
    if parts.frozen is None:
        raise ValueError("this search unit reads types and frozen vectors, which these parts do not carry")
    return parts.frozen


@lru_cache(maxsize=8)
def directions(dim: int, bits: int) -> Tensor:
    """Fixed random directions [d, bits], the same in every process."""
    return torch.randn(dim, bits, generator=torch.Generator().manual_seed(0))


def equal_bits(targets: Tensor, rows: Tensor, turn: Tensor) -> Tensor:
    """How many bits [t, c, l] of the codes of targets [t, c, d] and rows [l, d] are equal."""
    ours, theirs = (torch.where(x @ turn >= 0, 1.0, -1.0) for x in (targets, rows))
    return (ours @ theirs.T + turn.shape[1]) / 2


UNITS: dict[str, Unit] = {unit.__name__: unit for unit in (sim_hard, sim_soft, eta, lsh, twin, muse, muse_tier)}
EXTRA = {"muse_tier": TIERS}
"""Features [t, c, .] that a unit adds to the mass, which the click model's head reads as well."""


def named(search: str) -> Unit:
    """The unit of a name, or of `package.module:function`."""
    if ":" not in search:
        return UNITS[search]
    module, _, function = search.partition(":")
    unit: Unit = getattr(import_module(module), function)
    return unit
