"""Taking out of a table what texts differ in by form alone: questions by their question words, say.

The mean of the texts of each form is compared with the mean of all, and the directions in which they differ are
projected out of every vector (mean projection: Haghighatkhah et al. 2022, arXiv 2212.04273). A text's vector is a mean
of its pieces' vectors, so that what is gone from the pieces is gone from every text, in every language.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compass_ray.vectors import unit_rows


def forms_of(texts: Sequence[str], pattern: str, min_texts: int) -> NDArray[np.int64]:
    """Give texts numbers by what a pattern finds first in them.

    Parameters
    ----------
    texts : sequence of str
    pattern : str
        A regular expression, searched without regard to case.
    min_texts : int
        Rarer findings are no form of their own.

    Returns
    -------
    ndarray of shape (n,), int64
        From 0 on; -1 where nothing is found, or too rarely.
    """
    asks = re.compile(pattern, re.IGNORECASE)
    found = [match[0].casefold() if (match := asks.search(text)) else "" for text in texts]
    names, numbers, counts = np.unique(found, return_inverse=True, return_counts=True)
    kept = (names != "") & (counts >= min_texts)
    return np.where(kept, np.cumsum(kept) - 1, -1)[numbers]


def without_forms(
    pieces: NDArray[np.float32], ids: Sequence[NDArray[np.int32]], forms: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Project out of a table the directions in which texts of several forms differ on average.

    Parameters
    ----------
    pieces : ndarray of shape (n_pieces, d), float32
    ids : sequence of ndarray
        Pieces of each text.
    forms : ndarray of shape (n_texts,), int64
        The form of each text, from 0 on; texts of -1, and those without pieces, are not looked at.

    Returns
    -------
    ndarray of shape (n_pieces, d), float32
        With one direction less than there are forms.
    """
    used = np.array([row for row, form in enumerate(forms) if form >= 0 and len(ids[row])])
    texts = unit_rows(np.stack([pieces[ids[row]].mean(axis=0) for row in used])).astype(np.float64)
    means = np.stack([texts[forms[used] == form].mean(axis=0) for form in range(forms.max() + 1)])
    _, sizes, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    axes = axes[sizes > 1e-9 * sizes[0]]
    return np.asarray(pieces - (pieces @ axes.T) @ axes, dtype=np.float32)
