import math

import pytest

from features.checks import check, failure, missed


@pytest.mark.parametrize(
    ("value", "limit", "why", "most", "passed"),
    [
        (0.6, 0.5, "", False, True),
        (0.5, 0.5, "", False, True),
        (0.4, 0.5, "", False, False),
        (0.4, 0.5, "", True, True),
        (0.6, 0.5, "", True, False),
        (None, 0.5, "", False, False),  # it should have a figure
        (math.nan, 0.5, "", True, False),
        (None, 0.5, "nothing was shown", False, True),
        (0.1, 0.5, "nothing was shown", False, True),
    ],
)
def test_what_passes(value: float | None, limit: float, why: str, most: bool, passed: bool) -> None:
    found = check("gauc", value, limit, why, most=most)
    assert (found["passed"], found["applies"]) == (passed, not why)


def test_what_was_missed_is_said_with_figures() -> None:
    checks = [check("gauc", 0.51234567, 0.6), check("recall", None, 0.9), check("lag", 3, 5, most=True)]
    assert missed(checks) == "gauc 0.5123 (limit 0.6), recall without a figure (limit 0.9)"
    assert missed(checks[2:]) == ""
    (moved,) = [failure("champion", -0.02, "was not compared")]
    assert (moved["passed"], moved["applies"], missed([moved])) == (False, True, "champion was not compared (limit -0.02)")
