import dataclasses
from pathlib import Path

import numpy as np
import pytest

from features.errors import SeminarError
from model.search import cells, choose, exact, kernel, pq
from model.search.choose import recall, search
from model.search.codebooks import Codebooks, Quantiser, fit
from model.search.keys import Coded, Keys, Parts
from model.search.units import units


def some(seed: int = 0, length: int = 300, d: int = 16, late: int = 5) -> tuple[Keys, np.ndarray, Codebooks]:
    """A history with searches (item row 0), queries, repeats, a bias on stretches, and `late` items beside the table."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(8, d))
    items = (centres[rng.integers(0, 8, 60)] + 0.4 * rng.normal(size=(60, d))).astype(np.float32)
    queries = rng.normal(size=(10, d)).astype(np.float32)
    books = fit(items, queries, 4, 4)
    coded = books.code_items(items)
    columns = dataclasses.astuple(coded)
    table, more = Coded(*(c[: 60 - late] for c in columns)), Coded(*(c[60 - late :] for c in columns))
    keys = Keys(
        Parts(table, more if late else None),
        (rng.integers(0, 60, length) * (rng.random(length) < 0.7)).astype(np.int32),
        Parts(books.code_queries(queries)),
        rng.integers(0, 10, length).astype(np.int32),
        np.repeat(rng.normal(size=1 + length // 20), 20)[:length].astype(np.float32),
    )
    return keys, (centres[rng.integers(0, 8, 5)] + rng.normal(size=(5, d))).astype(np.float32), books


def plain(folded: np.ndarray, keys: Keys) -> np.ndarray:
    """The definition: every key is written out and scored."""
    table = np.concatenate([keys.items.table.parts, *([keys.items.more.parts] if keys.items.more else [])])
    whole = table[keys.item_rows] + keys.queries.table.parts[keys.query_rows]
    return folded.astype(np.float64) @ whole.T.astype(np.float64) + keys.bias


def agrees(places: np.ndarray, scores: np.ndarray, truth: np.ndarray, k: int) -> None:
    """The places are k different ones with the k best scores (ties may fall either way), and the scores are theirs."""
    assert places.shape == (len(truth), min(k, truth.shape[1]))
    assert all(len(set(row)) == len(row) for row in places.tolist())
    assert np.allclose(np.take_along_axis(truth, places.astype(int), 1), scores, atol=1e-4)
    assert np.allclose(-np.sort(-scores, 1), -np.sort(-truth, 1)[:, : scores.shape[1]], atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("length", "k"), [(300, 20), (300, 1), (300, 299), (2000, 7)])
def test_exact_search_is_the_definition(path: str, seed: int, length: int, k: int) -> None:
    keys, folded, _ = some(seed, length, late=5 * (seed % 2))
    agrees(*exact.search(folded, units(keys), k), plain(folded, keys), k)
    agrees(*exact.plain(folded, keys, k), plain(folded, keys), k)


def test_what_has_no_score_retrieves_nothing_and_costs_the_others_nothing(path: str) -> None:
    keys, folded, _ = some(0, 2000)
    truth = plain(folded, keys)
    folded[2] = np.nan
    places, scores = exact.search(folded, units(keys), 7)
    assert places[2].tolist() == [-1] * 7
    others = np.arange(len(folded)) != 2
    agrees(places[others], scores[others], truth[others], 7)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("d", [8, 20, 16, 64])
def test_a_search_of_all_cells_is_the_definition(path: str, seed: int, d: int) -> None:
    keys, folded, books = some(seed, 700, d)
    whole = dataclasses.replace(books.coarse, loss=0.0)
    found = cells.search(folded, units(keys, len(whole.centroids)), whole, 30)
    agrees(*found, plain(folded, keys), 30)


def test_equal_scores_are_retrieved_without_harm(path: str) -> None:
    keys, folded, books = some(length=500)
    same = dataclasses.replace(keys, item_rows=np.full(500, 3, np.int32), query_rows=keys.query_rows * 0, bias=keys.bias * 0)
    agrees(*exact.search(folded, units(same), 20), plain(folded, same), 20)
    agrees(*choose.scored(folded, same, 20, books, "cells"), plain(folded, same), 20)


@pytest.mark.parametrize("method", choose.METHODS)
@pytest.mark.parametrize("length", [0, 1, 7, 20])
def test_a_short_history_is_retrieved_whole(path: str, method: str, length: int) -> None:
    keys, folded, books = some(length=length)
    assert [sorted(row) for row in search(folded, keys, 20, books, method).tolist()] == [list(range(length))] * 5
    assert search(folded[:0], keys, 20, books, method).shape[0] == 0


def big(seed: int = 0) -> tuple[Keys, np.ndarray, Codebooks]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, 32))
    items = (centres[rng.integers(0, 40, 6000)] + 0.7 * rng.normal(size=(6000, 32))).astype(np.float32)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    queries = 0.1 * rng.normal(size=(30, 32)).astype(np.float32)
    books = fit(items, queries, 4, 4)
    rows = rng.integers(1, 6000, 9000).astype(np.int32), rng.integers(0, 30, 9000).astype(np.int32)
    bias = np.repeat(0.01 * rng.normal(size=9), 1000).astype(np.float32)
    keys = Keys(Parts(books.code_items(items)), rows[0], Parts(books.code_queries(queries)), rows[1], bias)
    return keys, items[rng.integers(0, 6000, 20)], books


def test_cells_that_are_left_out_hold_as_little_as_expected(path: str) -> None:
    keys, folded, books = big()
    found = units(keys, len(books.coarse.centroids))
    plan = cells.plan(folded, found, books.coarse, 100, found.search_scores(folded), found.query_scores(folded))
    assert plan.work < 0.6
    assert recall(folded, keys, 100, books, "cells") > 0.97
    assert recall(folded, keys, 100, books, "auto") > 0.97


def test_the_expected_loss_is_lowered_until_little_is_lost() -> None:
    keys, folded, books = big()
    hopeful = dataclasses.replace(books.coarse, loss=0.5)
    assert recall(folded, keys, 700, dataclasses.replace(books, coarse=hopeful), "cells") < 0.9
    found = cells.calibrate(hopeful, folded, keys, 700)
    assert found.loss in (*cells.LOSSES, 0)
    assert recall(folded, keys, 700, dataclasses.replace(books, coarse=found), "cells") >= cells.WANTED


def test_a_threshold_that_was_too_hopeful_is_given_up(path: str) -> None:
    keys, folded, books = big()
    found = units(keys, len(books.coarse.centroids))
    searches, queries = found.search_scores(folded), found.query_scores(folded)
    plan = cells.plan(folded, found, books.coarse, 100, searches, queries)
    hopeless = dataclasses.replace(plan, least=plan.least + 100)
    for one in (plan, hopeless):
        places, scores = cells.follow(one, folded, found, 100, searches, queries)
        assert places.shape == (20, 100)
        assert np.allclose(np.take_along_axis(plain(folded, keys), places.astype(int), 1), scores, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("bits", "opq"), [(8, False), (8, True), (4, False), (4, True)])
def test_a_tables_score_is_that_of_the_decoded_vector(seed: int, bits: int, opq: bool) -> None:
    rng = np.random.default_rng(seed)
    vectors, folded = rng.normal(size=(600, 16)).astype(np.float32), rng.normal(size=(5, 16)).astype(np.float32)
    quantiser = fit(vectors, vectors, 4, 4, seed, bits=bits, opq=opq).item
    codes = quantiser.encode(vectors)
    assert codes.shape == (600, 4)
    assert quantiser.bits == bits
    scores = pq.scan(quantiser.tables(folded), codes)
    assert np.allclose(scores, folded @ quantiser.decode(codes).T, atol=1e-4)
    assert np.allclose(scores, pq.scan_portable(quantiser.tables(folded), codes), atol=1e-4)
    lost = ((vectors - quantiser.decode(codes)) ** 2).sum() / (vectors**2).sum()
    assert lost < 0.6  # a code stands for something like its vector


@pytest.mark.parametrize("bits", [4, 8])
def test_fewer_vectors_than_dimensions_get_no_rotation(bits: int) -> None:
    """To learn one from them ended the process: the library's buffers are too small for it."""
    vectors = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    books = fit(vectors, vectors[:3], 8, 8, bits=bits, opq=True)
    assert books.item.rotation is None
    assert books.query.rotation is None
    assert ((books.item.decode(books.item.encode(vectors)) - vectors) ** 2).sum() < 0.7 * (vectors**2).sum()


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
    none = np.zeros(2999, np.int32)
    rows = np.arange(1, 3000, dtype=np.int32)
    keys = Keys(Parts(books.code_items(items)), rows, Parts(books.code_queries(queries)), none, none.astype(np.float32))
    folded = rng.normal(size=(5, 32)).astype(np.float32)
    scanned, reranked = (recall(folded, keys, 50, books, "pq", over) for over in (1, 8))
    assert scanned < reranked <= 1
    assert recall(folded, keys, 50, books, "pq", 60) > 0.999  # everything is reranked


@pytest.mark.parametrize(("bits", "opq"), [(8, False), (4, True)])
def test_codebooks_are_saved_and_stable_for_a_seed(tmp_path: Path, bits: int, opq: bool) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 16)).astype(np.float32)
    books = fit(vectors, vectors[:300], 8, 4, bits=bits, opq=opq)
    books.save(tmp_path)
    again, other = Codebooks.load(tmp_path), fit(vectors, vectors[:300], 8, 4, bits=bits, opq=opq)
    for column in ("parts", "cells", "codes"):
        coded = [getattr(one.code_items(vectors), column) for one in (books, again, other)]
        assert np.array_equal(coded[0], coded[1])
        assert np.array_equal(coded[0], coded[2])


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_ids_have_their_rows(path: str, count: int) -> None:
    rng = np.random.default_rng(count)
    ids = np.unique(rng.integers(1, 1 << 63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1))
    if count == 1000:
        ids[:3], ids[-1] = (1, 2, 3), np.iinfo(np.uint64).max
    wanted = np.concatenate([ids[::-1], [np.uint64(0)], ids + np.uint64(1) if count < 1000 else ids[5:8] - np.uint64(1)])
    expected = [*range(len(ids), 0, -1), 0, *[-1] * (len(wanted) - len(ids) - 1)]
    strided = np.zeros((len(wanted), 4), np.uint64)
    strided[:, 1] = wanted
    assert kernel.rows(ids, kernel.prefixes(ids), wanted).tolist() == expected
    assert kernel.rows(ids, kernel.prefixes(ids), strided[:, 1]).tolist() == expected


def test_an_unknown_method_is_refused() -> None:
    keys, folded, _ = some()
    with pytest.raises(SeminarError, match="magic"):
        search(folded, keys, 5, None, "magic")
    with pytest.raises(SeminarError, match="codebooks"):
        search(folded, keys, 5, None, "cells")
