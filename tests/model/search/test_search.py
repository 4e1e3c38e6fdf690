import numpy as np
import pytest

from model.search import exact, pq
from model.search.choose import recall, search
from model.search.codebooks import Codebooks, Quantiser, fit
from model.search.exact import Keys


def some(seed: int = 0, length: int = 300, d: int = 16) -> tuple[Keys, np.ndarray, Codebooks]:
    rng = np.random.default_rng(seed)
    items, queries = rng.normal(size=(60, d)).astype(np.float32), rng.normal(size=(10, d)).astype(np.float32)
    books = fit(items, queries, 8, 4)
    keys = Keys(
        items,
        rng.integers(0, 60, length),
        queries,
        rng.integers(0, 10, length),
        rng.normal(size=length).astype(np.float32),
        books.item.encode(items),
        books.query.encode(queries),
    )
    return keys, rng.normal(size=(5, d)).astype(np.float32), books


def plain(folded: np.ndarray, keys: Keys, k: int) -> list[set[int]]:
    """The definition: every key is written out and scored."""
    whole = keys.item_parts[keys.item_rows] + keys.query_parts[keys.query_rows]
    scores = folded.astype(np.float64) @ whole.T.astype(np.float64) + keys.bias
    return [set(np.argsort(-row)[:k].tolist()) for row in scores]


def test_exact_search_is_the_definition() -> None:
    keys, folded, _ = some()
    assert [set(row.tolist()) for row in exact.search(folded, keys, 20)] == plain(folded, keys, 20)


def test_a_short_history_is_retrieved_whole() -> None:
    keys, folded, books = some(length=7)
    for method in ("exact", "pq"):
        assert [sorted(row) for row in search(folded, keys, 20, books, method).tolist()] == [list(range(7))] * 5
    nothing, folded, books = some(length=0)
    assert search(folded, nothing, 20, books, "exact").shape == (5, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_tables_score_is_that_of_the_decoded_vector(seed: int) -> None:
    keys, folded, books = some(seed)
    assert keys.item_codes is not None
    decoded = books.item.decode(keys.item_codes)
    scores = pq.scan(books.item.tables(folded), keys.item_codes)
    assert np.allclose(scores, folded @ decoded.T, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_compiled_scan_equals_the_portable_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=(4, 8, 256)).astype(np.float32)
    codes = rng.integers(0, 256, (50, 8)).astype(np.uint8)
    assert np.allclose(pq.scan(tables, codes), pq.scan_portable(tables, codes), atol=1e-4)


def test_encoding_takes_the_nearest_centroid() -> None:
    rng = np.random.default_rng(0)
    quantiser = Quantiser(rng.normal(size=(2, 256, 3)).astype(np.float32))
    vectors = rng.normal(size=(20, 6)).astype(np.float32)
    for vector, code in zip(vectors, quantiser.encode(vectors), strict=True):
        for s in range(2):
            distances = ((quantiser.centroids[s] - vector[3 * s : 3 * s + 3]) ** 2).sum(1)
            assert distances[code[s]] == pytest.approx(distances.min())


def test_reranking_finds_what_the_scan_misses() -> None:
    rng = np.random.default_rng(0)
    items, queries = rng.normal(size=(3000, 32)).astype(np.float32), np.zeros((1, 32), np.float32)
    books = fit(items, queries, 2, 2)  # very coarse
    codes = books.item.encode(items), books.query.encode(queries)
    none = np.zeros(3000, np.int64)
    keys = Keys(items, np.arange(3000), queries, none, np.zeros(3000, np.float32), *codes)
    folded = rng.normal(size=(5, 32)).astype(np.float32)
    scanned, reranked = recall(folded, keys, 50, books, over=1), recall(folded, keys, 50, books, over=8)
    assert scanned < reranked <= 1
    assert recall(folded, keys, 50, books, over=60) > 0.999  # everything is reranked


def test_codebooks_are_saved_and_stable_for_a_seed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    keys, _, books = some()
    books.save(tmp_path)
    again = Codebooks.load(tmp_path)
    assert np.array_equal(again.item.centroids, books.item.centroids)
    assert np.array_equal(fit(keys.item_parts, keys.query_parts, 8, 4).item.centroids, books.item.centroids)


def test_an_unknown_method_is_refused() -> None:
    keys, folded, _ = some()
    with pytest.raises(ValueError, match="magic"):
        search(folded, keys, 5, None, "magic")
