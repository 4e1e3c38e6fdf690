"""Scores of a click model for lists of any length, in passes of bounded size.

Letters: t moments, c candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import SeminarError
from model.nn.click import ClickModel, rated
from model.nn.inputs import Parts
from model.search.codebooks import fit
from model.train import checkpoint
from model.train.codebooks import encode_all, population
from model.train.ctr import logits
from model.train.dataset import Dataset
from model.train.moments import Moments
from model.train.popularity import Popularity
from model.train.rank import Scorer

Ints = NDArray[np.int64]
CELLS = 4000
"""Candidates of one user in a pass: attention over a long history takes memory for each."""
CODE_BYTES = (16, 8)
PASS = 16  # such pieces
LIKE = 0.7
"""The shortest list of a piece is longer than this share of its longest: the rest of it would be padding, scored in vain."""


def pieces(m: Moments) -> Iterator[tuple[Ints, slice, Moments]]:
    """Rows and columns of a user's moments, those of like length together, with at most CELLS candidates each."""
    lengths = m.real.sum(1)
    rows = np.argsort(lengths, kind="stable")
    while len(rows):
        most = int(lengths[rows[-1]])
        longer = len(rows) - int(np.searchsorted(lengths[rows], LIKE * most, "right"))
        size = min(max(longer, 1), max(1, CELLS // max(most, 1)))
        taken, rows = rows[-size:], rows[:-size]
        for begin in range(0, max(most, 1), CELLS):
            columns = slice(begin, min(begin + CELLS, most))
            yield (
                taken,
                columns,
                Moments(
                    m.user,
                    m.prefix[taken],
                    m.now[taken],
                    m.items[taken, columns],
                    m.queries[taken, columns],
                    m.labels[taken, columns],
                    m.source[taken],
                    m.position[taken, columns],
                    m.real[taken, columns],
                ),
            )


def _each(run: Callable[[Any], None], passes: Sequence[Any]) -> None:
    """Run over passes, as many at a time as torch has threads: most of a pass is no matrix product."""
    threads = torch.get_num_threads()
    if min(threads, len(passes)) < 2:
        for one in passes:
            run(one)
        return
    try:
        with ThreadPoolExecutor(threads, "score", torch.set_num_threads, (1,)) as pool:
            list(pool.map(run, passes))
    finally:
        torch.set_num_threads(threads)  # what the workers set is the process's, too


def of_model(model: ClickModel, dataset: Dataset, vocabulary: Ints, before: int) -> Scorer:
    """Log-odds of a click model, to which the popularity before a time is known; padding keeps 0."""
    popularity = Popularity(dataset, before)

    def score(moments: list[Moments]) -> list[NDArray[np.float64]]:
        out = [np.zeros(m.items.shape) for m in moments]
        cut = [(i, *piece) for i, m in enumerate(moments) for piece in pieces(m)]
        cut.sort(key=lambda piece: -piece[-1].items.shape[1])  # a pass is as wide as its widest

        def run(some: list[tuple[int, Ints, slice, Moments]]) -> None:
            with torch.no_grad():
                found = logits(model, dataset, vocabulary, [m for *_, m in some], popularity)
            for (i, rows, columns, _), values in zip(some, found, strict=True):
                out[i][rows, columns] = values.numpy()

        _each(run, [cut[start : start + PASS] for start in range(0, len(cut), PASS)])
        return out

    return score


def of_checkpoint(folder: Path, dataset: Dataset, before: int, search: str = "") -> Scorer:
    """Log-odds of a saved click model, to which the popularity before a time is known.

    search: another than it was trained with: a unit, or `pq` (16 + 8 bytes, codebooks of the population, no rerank).
    SeminarError where the data set was written for other encoders than the model's.
    """
    found = checkpoint.read(folder)
    checkpoint.fits(found, folder.name, dataset)
    model = found.spec.click()
    try:
        model.load_state_dict(found.weights)
    except RuntimeError:
        wrong = "is of another version of the click model"
        raise SeminarError("checkpoint", folder.name, wrong, "fine-tune again") from None
    vocabulary = found.vocabulary(dataset)
    if search == "pq":
        model.backbone.quantised = quantised(model.eval(), dataset, vocabulary, before)
    elif search:
        model.backbone.search = search
    return of_model(model.eval(), dataset, vocabulary, before)


def offset(folder: Path) -> float:
    """What a saved click model adds to log-odds for the source of labels that rates are of (prior correction)."""
    found = checkpoint.read(folder)
    return float(found.weights["source"][rated(found.facts["labels"])])


def quantised(model: ClickModel, dataset: Dataset, vocabulary: Ints, before: int) -> Callable[[Parts], Parts]:
    """What codes of a model's parts stand for: inner products with these are what lookup tables add up."""
    parts = encode_all(model.backbone, dataset, vocabulary)
    books = fit(*population(dataset, *parts, before), *CODE_BYTES)

    def decoded(parts: Parts) -> Parts:
        item, query = (
            torch.from_numpy(book.decode(book.encode(part.detach().numpy())))
            for book, part in ((books.item, parts.item), (books.query, parts.query))
        )
        return Parts(item, query)

    return decoded
