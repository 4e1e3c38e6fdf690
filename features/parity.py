"""Whether online and history hold the same sequences: compared user by user, record by record."""

from pathlib import Path
from typing import Any

import numpy as np

from features.history import read_sequences
from features.online import Online


def compare(online: Online, home: Path) -> dict[str, Any]:
    """Every user of history against the online store.

    Returns users, equal (users), missing (records in history only), extra (online only), edit_distance (their sum: both
    are sorted sets, so insertions and deletions are all that can differ), differing (the first ten users).
    """
    stored = read_sequences(home)
    missing = extra = equal = 0
    differing: list[str] = []
    for start in range(0, len(stored.user_ids), 500):
        users = stored.user_ids[start : start + 500]
        for i, served in enumerate(online.sequences(users)):
            expected = stored.of(start + i).view("V32")
            found = served[0].view("V32") if served else expected[:0]
            common = len(np.intersect1d(expected, found))
            missing += len(expected) - common
            extra += len(found) - common
            if expected.tobytes() == found.tobytes():
                equal += 1
            elif len(differing) < 10:
                differing.append(users[i])
    return {
        "users": len(stored.user_ids),
        "equal": equal,
        "missing": missing,
        "extra": extra,
        "edit_distance": missing + extra,
        "differing": differing,
    }
