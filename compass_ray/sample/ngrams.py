"""Hashed n-gram features of texts, and importance weights on them: DSIR (Xie et al., 2023, arXiv 2302.03169).

Tokens, hashes and smoothing are those of the authors' package ``data-selection``, so that bucket counts agree with it.
A known weakness: a run of letters is one word, so a sentence in a script without spaces is one or two rare words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import regex
import scipy.sparse as sp
from numpy.typing import NDArray

BUCKETS = 10_000
_WORD = regex.compile(r"\w+|[^\w\s]+")
_SMOOTHING = 1e-8


def hashed_ngrams(texts: Sequence[str], *, buckets: int = BUCKETS) -> Any:
    """Count how often each text holds an n-gram of each bucket.

    N-grams are lower-case words and pairs of neighbours.

    Parameters
    ----------
    texts : sequence of str
    buckets : int

    Returns
    -------
    scipy.sparse.csr_array of shape (n_texts, buckets), int64
        Cost: a SHA-256 for each distinct n-gram of the call.
    """
    bucket_of: dict[str, int] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        words = _WORD.findall(text.lower())
        for term in (*words, *map(" ".join, pairwise(words))):
            bucket = bucket_of.get(term)
            if bucket is None:
                bucket = bucket_of[term] = int.from_bytes(hashlib.sha256(term.encode()).digest(), "big") % buckets
            columns.append(bucket)
        ends.append(len(columns))
    ones = np.ones(len(columns), dtype=np.int64)
    counts = sp.csr_array((ones, np.array(columns, dtype=np.int64), np.array(ends)), shape=(len(texts), buckets))
    counts.sum_duplicates()
    return counts


def importance(usage: NDArray[np.int64], raw: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the log ratio of each bucket's probability in usage and raw data. Shape (buckets,).

    Parameters
    ----------
    usage, raw : ndarray of shape (buckets,), int64
        Counts over all texts of either. A text's log weight is the product of its features with the ratios.
    """
    p, q = (counts / max(1, counts.sum()) for counts in (usage, raw))
    ratio: NDArray[np.float64] = np.log(p + _SMOOTHING) - np.log(q + _SMOOTHING)
    return ratio
