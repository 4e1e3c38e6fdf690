"""Which lists belong to which slice. Letters: g lists, n items.

- `length_*`: behaviours before the target's session;
- `repeat`, `explore`: whether the user browsed the target before;
- `item_cold`, `item_rare`, `item_common`: browses of the target by anybody before the window (0, 1 to 9, more);
- `target_untrained`: the target itself was nobody's target in the fine-tuning window [t1, t2);
- `history_untrained`: the quarter of lists in whose histories the greatest share of distinct ids was never a fine-tuning
  target (the paper's claim is about these: arXiv 2407.10714).
"""

import numpy as np
from numpy.typing import NDArray

from features.record import KIND_BROWSE
from model.config import Windows
from model.train.dataset import Dataset
from model.train.lists import Lists

Bools = NDArray[np.bool_]
LENGTHS = (300, 1000)
RARE = 10


def slices(dataset: Dataset, lists: Lists, windows: Windows) -> dict[str, Bools]:
    """Each slice as a mask [g] over the lists."""
    counts = dataset.counts(lists.since)
    trained = dataset.counts(windows.t2, windows.t1) > 0
    length, repeat, popularity, fresh, unknown = [], [], [], [], []
    for m in lists.moments:
        start = dataset.histories.offsets[m.user]
        kinds = dataset.histories.records["kind"]
        for prefix, target in zip(m.prefix.tolist(), m.items[:, 0].tolist(), strict=True):
            here = slice(start, start + prefix)
            seen = np.unique(dataset.item_rows[here][kinds[here] == KIND_BROWSE])
            length.append(prefix)
            repeat.append(bool(np.isin(target, seen)))
            popularity.append(counts[target])
            fresh.append(not trained[target])
            unknown.append(float(1 - trained[seen].mean()) if len(seen) else 1.0)
    lengths, counted, again = np.array(length, np.int64), np.array(popularity), np.array(repeat, bool)
    share = np.array(unknown)
    low, high = LENGTHS
    return {
        f"length_below_{low}": lengths < low,
        f"length_{low}_to_{high - 1}": (lengths >= low) & (lengths < high),
        f"length_from_{high}": lengths >= high,
        "repeat": again,
        "explore": ~again,
        "item_cold": counted == 0,
        "item_rare": (counted > 0) & (counted < RARE),
        "item_common": counted >= RARE,
        "target_untrained": np.array(fresh, bool),
        "history_untrained": share >= np.quantile(share, 0.75) if len(share) else share > 1,
    }
