"""Has usage moved? Two histograms over one codebook, and what can be said of the populations behind them.

A divergence between samples says little by itself: two samples of one usage, 285 documents each over 100 clusters, are
0.15 bits apart on average. So there is a test of whether there is any difference, which is exact, and an interval of
how large it is, both of which count what the reference too is uncertain by.
Cost: some thousand multinomial draws over the clusters, tenths of a second a comparison, however many documents; where
more draws are needed, some seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import hypergeom

from compass_ray.divergence import jsd
from compass_ray.monitor.tail import permutation_p_value
from compass_ray.usage_shares import concentration, shrunk_shares

Counts = NDArray[np.int64]
Vector = NDArray[np.float64]

_NULL_DRAWS = 4_999
_MORE_DRAWS = 95_000
"""Where none of the first lies as far apart and their tail leaves open how rare that is: 1/100,000 suffices for 1,600
languages of three tests."""
_AT_ONCE = 5_000
_RARE = 1e-6
_DRAWS = 400
_STEPS = np.linspace(0.0, 1.4, 15)
_QUANTILES = (0.975, 0.5, 0.025)
_Z = 1.959964
_MOST = 100_000_000
"""Documents of a side that draws can take; NumPy's end at 10^9 of both."""
_TAIL_DEVIATIONS = 40


@dataclass(frozen=True)
class Shift:
    """How far two usages are apart, in bits.

    Attributes
    ----------
    jsd, low, high : float
        Of the populations: median-unbiased, with its 95 % interval.
    plugin : float
        Of the samples.
    p_value : float
        Of the hypothesis that both are samples of one usage.
    """

    jsd: float
    low: float
    high: float
    plugin: float
    p_value: float


@dataclass(frozen=True)
class Novelty:
    """Documents far from every cluster: their share, that of the reference, and by how much it rose.

    ``low`` is the lower end of the rise's 95 % interval; ``p_value`` is of the hypothesis that it did not rise.
    """

    share: float
    reference: float
    low: float
    p_value: float


def shift(reference: Counts, window: Counts, rng: np.random.Generator) -> Shift:
    """Estimate the divergence of two usages, from a sample of each.

    The test permutes documents between the two: given all documents, the window of one usage is a draw without
    replacement (multivariate hypergeometric), so its level is exact if documents came one by one. Where none of 4,999
    draws lies as far apart, the p-value is that of a tail fitted to their Jensen-Shannon distances, the roots of
    divergences, which fall as normal deviates do; if that is not below 10^-6, that of 99,999 draws, or of their tail.
    It is never below the probability of the very counts observed.

    The interval inverts a parametric bootstrap test (Garthwaite & Buckland, 1992): along a line of pairs of usages,
    from none to more of the difference that was observed, it holds those whose samples would lie as far apart as these
    do. The middle of the line is both samples together, shrunk towards uniform: what a sparse sample has not met would
    otherwise be taken for impossible.

    Parameters
    ----------
    reference, window : ndarray of shape (n_bins,), int64
        Documents by cluster, the outlier bin among them; neither may be all zero. More than 10^8 of a side count as
        10^8 with the same shares, which leaves more to chance.

    Returns
    -------
    Shift
        In simulations the interval held the truth in 0.95 of the cases and its lower end lay above it in 0.03
        (``benchmarks/results/2026-11-28-monitor.md``).
    """
    reference, window = _at_most(reference), _at_most(window)
    sizes = int(reference.sum()), int(window.sum())
    p, q = reference / sizes[0], window / sizes[1]
    together = reference + window
    plugin = float(jsd(p, q))

    p_value = _p_value(reference, window, plugin, rng)

    uniform = np.full(len(together), 1 / len(together))
    middle = shrunk_shares(together, uniform, concentration(together, uniform))
    observed = together / together.sum()
    truths, quantiles = [], []
    for step in _STEPS:
        one, other = (_shares(middle + step * (share - observed)) for share in (p, q))
        samples = (rng.multinomial(n, of, size=_DRAWS) / n for n, of in zip(sizes, (one, other), strict=True))
        truths.append(float(jsd(one, other)))
        quantiles.append(np.quantile(jsd(*samples), _QUANTILES))
    rising = np.maximum.accumulate(np.array(quantiles), axis=0)
    steps = [
        _first_step(rising[:, 0], plugin),
        *(float(np.interp(plugin, rising[:, index], _STEPS)) for index in (1, 2)),
    ]
    low, middle_value, high = (float(np.interp(step, _STEPS, truths)) for step in steps)
    if plugin >= rising[-1, 2]:  # farther than the line of usages reaches
        high = max(high, plugin)
    return Shift(middle_value, low, high, plugin, float(p_value))


def _at_most(counts: Counts) -> Counts:
    """Scale counts down to what draws can take."""
    total = int(counts.sum())
    if total <= _MOST:
        return counts
    scaled: Counts = np.rint(counts * (_MOST / total)).astype(np.int64)
    return scaled


def _p_value(reference: Counts, window: Counts, plugin: float, rng: np.random.Generator) -> float:
    together, found = reference + window, float(np.sqrt(plugin))
    null = _distances(together, int(window.sum()), _NULL_DRAWS, rng)
    value = permutation_p_value(null, found)
    if _RARE < value < 1 / (1 + _NULL_DRAWS):
        more = [_distances(together, int(window.sum()), _AT_ONCE, rng) for _ in range(_MORE_DRAWS // _AT_ONCE)]
        value = permutation_p_value(np.concatenate([null, *more]), found)
    ways = _log_ways(together, window).sum() - _log_ways(together.sum(), window.sum())
    return max(value, float(np.exp(min(0.0, ways))))


def _distances(together: Counts, size: int, draws: int, rng: np.random.Generator) -> Vector:
    """Draw windows of the documents of both sides, and compute how far each is from what it leaves."""
    windows = rng.multivariate_hypergeometric(together, size, size=draws, method="marginals")
    distances: Vector = np.sqrt(jsd((together - windows) / (together.sum() - size), windows / size))
    return distances


def _log_ways(of: NDArray[np.int64], drawn: NDArray[np.int64]) -> Vector:
    """Compute the logarithm of how many ways there are to draw so many of so many."""
    ways: Vector = gammaln(of + 1.0) - gammaln(drawn + 1.0) - gammaln(of - drawn + 1.0)
    return ways


def _first_step(rising: Vector, value: float) -> float:
    """Find the first step at which a value is reached. Samples that share no cluster reach it at many steps."""
    reached = int(np.argmax(rising >= value - 1e-9)) if rising[-1] >= value - 1e-9 else len(rising)
    if reached in (0, len(rising)):
        return float(_STEPS[min(reached, len(_STEPS) - 1)])
    return float(np.interp(value, rising[reached - 1 : reached + 1], _STEPS[reached - 1 : reached + 1]))


def _shares(values: Vector) -> Vector:
    positive = np.maximum(values, 0)
    shares: Vector = positive / positive.sum()
    return shares


def novelty(reference: Counts, window: Counts) -> Novelty:
    """Test whether more documents than before lie far from every cluster.

    A divergence over clusters barely sees that. The test is Fisher's exact one, one-sided; the interval is that of a
    difference of shares by Newcombe (1998, method 10).

    Parameters
    ----------
    reference, window : ndarray of shape (n_bins,), int64
        The last bin is that of outliers.
    """
    documents_before, documents_now = int(reference.sum()), int(window.sum())
    far_before, far_now = int(reference[-1]), int(window[-1])
    before, now = far_before / documents_before, far_now / documents_now
    p_value = _at_least(far_now, documents_before + documents_now, far_before + far_now, documents_now)
    above_before = _wilson(far_before, documents_before)[1] - before
    below_now = now - _wilson(far_now, documents_now)[0]
    low = now - before - float(np.hypot(above_before, below_now))
    return Novelty(now, before, low, min(1.0, p_value))


def _at_least(found: int, documents: int, far: int, drawn: int) -> float:
    """Compute the upper tail of the hypergeometric distribution.

    SciPy's sums up to the end, of 10^9 documents for minutes; forty standard deviations on nothing is left.
    """
    mean = drawn * (far / documents)
    last = int(max(found, mean) + _TAIL_DEVIATIONS * (1 + np.sqrt(mean)))
    values = np.arange(found, min(last, far, drawn) + 1)
    return float(hypergeom.pmf(values, documents, far, drawn).sum())


def _wilson(successes: int, trials: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share (Wilson, 1927)."""
    share, width = successes / trials, _Z**2 / trials
    centre = (share + width / 2) / (1 + width)
    half = _Z * np.sqrt(share * (1 - share) / trials + width / (4 * trials)) / (1 + width)
    return float(centre - half), float(centre + half)
