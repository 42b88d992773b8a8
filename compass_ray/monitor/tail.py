"""P-values of permutation tests, below what the permutations themselves can show.

Of 4,999 permutations the smallest p-value is 1/5,000, and over 200 languages of three tests each a lone one of them is
never significant at a false discovery rate of 0.05: that takes 1/12,000.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_TAIL = 250
"""Of the largest permutations a tail is fitted to; as many as Knijnenburg et al. (2009) begin with."""


def permutation_p_value(null: Vector, found: float) -> float:
    """Compute how often chance alone would find as much.

    Where a permutation found as much, that is the share of those that did, itself among them. Where none did, it is the
    tail of the largest 250 of them, with an exponential fall: the generalised Pareto tail of Knijnenburg et al. (2009)
    of shape 0. Their fit of the shape may end before what was found, with a p-value of 0. An exponential fall is above
    that of any statistic whose hazard rises, as that of normal ones and of square roots of chi-squared ones does, so
    that the p-value is too large, not too small.

    Parameters
    ----------
    null : ndarray of shape (n,), float64
        What permutations found; of a statistic with such a tail.
    found : float

    Returns
    -------
    float
        In (0, 1]. With none as large and 4,999 permutations of a normal statistic: 2e-5 at 5 standard deviations, where
        the truth is 3e-7.
    """
    as_large = np.count_nonzero(null >= found - 1e-12)
    smallest = 1 / (1 + len(null))
    if as_large or len(null) < 2 * _TAIL:
        return float((1 + as_large) * smallest)
    cut = np.partition(null, -_TAIL)[-_TAIL]
    above, below = null[null >= cut], null[null < cut]  # all of those that found the same: chance may know few values
    if not len(below):
        return float(smallest)
    threshold = (below.max() + cut) / 2
    excess = float(np.mean(above - threshold))
    share = len(above) / len(null)
    return float(np.clip(share * np.exp(-(found - threshold) / excess), np.finfo(np.float64).tiny, smallest))
