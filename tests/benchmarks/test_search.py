import pytest

from benchmarks import recall, search
from benchmarks.harness.search_report import table


def test_every_way_finds_the_best_and_is_compared(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path))
    found = search.run((300, 5_000), (1, 5), (32,), rounds=1, items=4_000)
    assert {case["keys"] for case in found["cases"]} == {"hard"}  # this home has no bundle
    assert len({case["method"] for case in found["cases"]}) == 11
    for case in found["cases"]:
        least = 0.999 if case["method"].startswith("exact") else 0.97 if "ours" in case["method"] else 0.5
        assert case["recall"] >= least - 0.01 * (case["method"] == "pq of ours") * 20, case
        assert case["ms"] > 0 < case["speedup_vs_exact"]
        assert 0 <= case["bytes_per_item"] <= 64
    assert table(found["cases"], "hard", 32).count("\n") == 5


@pytest.mark.long
def test_quantised_keys_are_recalled_better_with_more_bits() -> None:
    found = recall.run(3, 512, 2_048)
    rows = {(row["method"], row["bits"], row["weighting"]): row["recall"] for row in found["rows"]}
    for weighting in recall.WEIGHTS:
        assert rows["PQ fused", 128, weighting] > rows["PQ fused", 32, weighting]
        assert rows["PQ fused", 128, weighting] > rows["LSH fused", 64, weighting]
