from pathlib import Path

import numpy as np

from features import history
from features.online import Online
from features.parity import compare
from features.record import RECORD
from tests.features.test_history import events


def test_parity_counts_what_is_missing_and_extra(home: Path) -> None:
    online, records = Online(), np.zeros(4, RECORD)
    records["time"] = [1, 2, 3, 4]
    history.write(home, "events", events("same", records), "a")
    history.write(home, "events", events("torn", records), "b")
    online.append({"same": records[::-1]})
    other = records[:3].copy()
    other["time"] = [1, 2, 9]
    online.append({"torn": other})
    assert compare(online, home) == {
        "users": 2,
        "equal": 1,
        "missing": 2,
        "extra": 1,
        "edit_distance": 3,
        "differing": ["torn"],
    }
