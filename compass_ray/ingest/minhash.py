"""MinHash and locality-sensitive hashing: documents that share most of their n-grams meet in a bucket.

A signature estimates the Jaccard similarity of two sets of n-grams (Broder, 1997; here Fast Similarity Sketching,
Dahlgaard, Knudsen and Thorup, 2017, as the library rensa has it). It is cut into bands of rows, and two documents that
agree in all rows of a band are taken for near-duplicates (Indyk and Motwani, 1998): at similarity s with probability
1 - (1 - s^rows)^bands. Pure array functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

import numpy as np
import rensa
from numpy.typing import NDArray

from compass_ray.ingest.ngrams import Lengths, ngram_hashes
from compass_ray.words import Hashes, mixed

ALGORITHM = rensa.RMinHash.ALGORITHM_VERSION
"""Of the library: another one gives other signatures."""

_SEED = 0
_STEPS = 1000
_BLOCK = 1 << 12
"""Documents at once: a value of a signature is an object of Python for a moment."""


class Banding(NamedTuple):
    """How a signature is cut."""

    bands: int
    rows: int

    def probability(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the chance that two documents meet in a bucket, by Jaccard similarity."""
        return np.asarray(1 - (1 - similarity**self.rows) ** self.bands)


def banding(similarity: float, hashes: int) -> Banding:
    """Find the cut of ``hashes`` or fewer that errs least around a similarity.

    What is minimised is the area of pairs below it that meet and of pairs above it that do not, each similarity being
    as likely as any other; of equals the one with fewer bands.
    """
    grid = (np.arange(_STEPS) + 0.5) / _STEPS
    below = grid < similarity

    def error(cut: Banding) -> float:
        meet = cut.probability(grid)
        return float(np.where(below, meet, 1 - meet).mean())

    cuts = [Banding(bands, rows) for bands in range(1, hashes + 1) for rows in range(1, hashes // bands + 1)]
    return min(cuts, key=error)


def bucket_hashes(
    texts: Sequence[str], langs: Sequence[str], lengths: Lengths, cut: Banding, *, vowel_marks: bool = False
) -> tuple[Hashes, NDArray[np.intp]]:
    """Compute the bucket of every document in every band.

    Parameters
    ----------
    texts : sequence of str
        As for :func:`~compass_ray.ingest.ngrams.ngram_hashes`.
    langs : sequence of str
        Documents of two languages never meet.
    lengths : Lengths
        Of n-grams.
    vowel_marks : bool, optional
        As for :func:`~compass_ray.ingest.ngrams.ngram_hashes`.

    Returns
    -------
    buckets : ndarray of shape (n_compared, bands), uint64
        Equal in a column if, and but for collisions of 64 bits only if, two documents agree in that band.
    compared : ndarray of shape (n_compared,), intp
        Which documents these are, ascending: all but those too short for an n-gram.

    Notes
    -----
    Deterministic. Cost: that of the n-grams, and about as much for signatures.
    """
    found = [np.empty((0, cut.bands), dtype=np.uint64)]
    compared = [np.empty(0, dtype=np.intp)]
    tags = {lang: int.from_bytes(blake2b(lang.encode(), digest_size=8).digest(), "little") for lang in set(langs)}
    bands: Hashes = np.arange(cut.bands).astype(np.uint64)
    for start in range(0, len(texts), _BLOCK):
        hashes, target_langs = ngram_hashes(texts[start : start + _BLOCK], lengths, vowel_marks=vowel_marks)
        order = np.argsort(target_langs, kind="stable")
        rows, first = np.unique(target_langs[order], return_index=True)
        rows = rows.astype(np.intp) + start
        values = _signatures(hashes[order], first, cut.bands * cut.rows).reshape(len(rows), cut.bands, cut.rows)
        languages = np.array([tags[langs[row]] for row in rows.tolist()], dtype=np.uint64)
        buckets = languages[:, None] + bands
        for row in range(cut.rows):
            buckets = mixed(buckets ^ values[:, :, row])
        found.append(buckets)
        compared.append(rows)
    return np.concatenate(found), np.concatenate(compared)


def _signatures(hashes: Hashes, first: NDArray[np.intp], length: int) -> Hashes:
    """Compute a signature for each run of hashes. Of each run it is given where it begins. Shape (n_runs, length)."""
    offsets = np.append(first, len(hashes)).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, length, _SEED)
    values = chain.from_iterable(matrix.to_rows())  # the library's matrix lends no buffer
    return np.fromiter(values, dtype=np.uint64, count=len(first) * length).reshape(len(first), length)
