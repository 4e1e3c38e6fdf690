import shutil

import pytest

from benchmarks import append


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server (Debian package)")
def test_every_store_is_measured_and_the_environment_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "/nowhere")
    monkeypatch.delenv("SEMINAR_ONLINE_STORE", raising=False)
    monkeypatch.setattr(append, "CAP", 2_000)
    result = append.run((100, 200), appends=20, reads=5)
    assert list(result["stores"]) == ["sqlite", "redis", "stock sqlite", "stock redis"]
    for name, store in result["stores"].items():
        assert list(store["by_length"]) == [100, 200]
        assert all(found["append"]["p50"] > 0 < found["read"]["p50"] for found in store["by_length"].values())
        assert ("at_cap_with_2_trims" in store) == (not name.startswith("stock"))
    import os

    assert os.environ["SEMINAR_HOME"] == "/nowhere"
    assert "SEMINAR_ONLINE_STORE" not in os.environ
