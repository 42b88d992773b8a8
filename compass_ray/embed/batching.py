"""Batches that are a function of the shard alone.

A GEMM may give a row other last bits in a batch of another shape, so batches must not depend on
how Ray cuts blocks or how many actors there are. Texts are ordered by length to waste little padding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def token_batches(tokens: NDArray[np.int32], batch_tokens: int, batch_texts: int) -> list[NDArray[np.intp]]:
    """Split texts into batches of bounded padded size.

    Parameters
    ----------
    tokens : ndarray of shape (n,), int32
        Tokens of each text.
    batch_tokens : int
        Longest text times number of texts, at most; a longer text is a batch of its own.
    batch_texts : int
        Texts in a batch, at most.

    Returns
    -------
    list of ndarray
        Positions of the texts of each batch: each position once, shortest texts first.
    """
    order = np.lexsort((np.arange(len(tokens)), tokens))
    batches: list[NDArray[np.intp]] = []
    start = 0
    for stop in range(1, len(order) + 1):
        longest = tokens[order[stop]] if stop < len(order) else 0
        full = stop - start >= batch_texts or (stop + 1 - start) * int(longest) > batch_tokens
        if stop == len(order) or full:
            batches.append(order[start:stop])
            start = stop
    return batches
