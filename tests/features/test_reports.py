"""Reports are JSON that every reader takes, replaced atomically."""

import json
import math
from pathlib import Path

import numpy as np

from features import reports


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    assert reports.load(tmp_path, "psu") is None
    reports.save(tmp_path, "psu", {"version": "v000001"})
    written = reports.save(tmp_path, "psu", {"version": "v000002", "losses": (1.5, 2)})
    assert written == {"version": "v000002", "losses": [1.5, 2]} == reports.load(tmp_path, "psu")
    assert [file.name for file in (tmp_path / "reports").iterdir()] == ["psu.json"]


def test_only_builtins_and_finite_numbers_are_written(tmp_path: Path) -> None:
    facts = {
        "gauc": float("nan"),
        "n": np.int64(3),
        "x": np.float32(0.5),
        "ok": np.bool_(True),
        "at": Path("a"),
        5: math.inf,
    }
    written = reports.save(tmp_path, "odd", facts)
    assert written == {"gauc": None, "n": 3, "x": 0.5, "ok": True, "at": "a", "5": None}
    assert {type(value) for value in written.values()} == {type(None), int, float, bool, str}
    json.loads((tmp_path / "reports" / "odd.json").read_text(), parse_constant=lambda name: 1 / 0)
