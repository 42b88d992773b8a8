"""The certificate: how far training data are from usage, before and after, on usage nobody has used.

Divergences compare the held-out target documents of an owner with what will be trained on, over
clusters and the outlier bin. The training data are known exactly, the held-out documents are a sample:
estimates are corrected for its bias and intervals resample it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.divergence import jsd
from compass_ray.mass import concentration, shrunk_mass
from compass_ray.sample.allocation import hypergeometric_quotas

_BOOTSTRAP_DRAWS = 1000
_RANDOM_DRAWS = 200

Counts = NDArray[np.int64]
Statistic = Callable[[NDArray[Any]], NDArray[Any]]
Possible = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """A divergence, or a difference of two, in bits with its 95 % interval; ``plugin`` is without bias correction."""

    jsd: float
    low: float
    high: float
    plugin: float

    def to_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 6) for name in ("jsd", "low", "high", "plugin")}


def divergence(heldout: Counts, training: Counts, rng: np.random.Generator) -> Estimate:
    """Divergence of training data from usage.

    A few dozen documents over a hundred clusters look farther from anything than usage itself is; see
    :func:`_estimate`. In simulations of 85 to 3,000 documents over 30 and 100 clusters the interval holds the truth in
    0.98 of the cases, and in 0.80 of the worst kind (docs/selection.md).

    Parameters
    ----------
    heldout, training : ndarray of shape (n_bins,), int64
        Documents by cluster; neither may be all zero.
    """
    q = training / training.sum()
    found = _estimate(heldout, lambda usage: jsd(usage, q), rng)
    value, low, high = np.clip([found.jsd, found.low, found.high], 0, 1)
    return Estimate(float(value), float(low), float(high), found.plugin)


def reduction(heldout: Counts, one: NDArray[Any], other: NDArray[Any], rng: np.random.Generator) -> Estimate:
    """By how much ``other`` is nearer to usage than ``one``: JSD(one) - JSD(other), in [-1, 1], with its interval.

    Both are compared with the same resampled usage, whose scatter they share for the most part: the interval is much
    narrower than those of the two divergences, and it is the one to ask whether a selection helps.

    Parameters
    ----------
    heldout : ndarray of shape (n_bins,), int64
    one, other : ndarray of shape (n_bins,), float64
        Shares or counts of training data.
    """
    p, q = one / one.sum(), other / other.sum()
    return _estimate(heldout, lambda usage: jsd(usage, p) - jsd(usage, q), rng)


def _estimate(heldout: Counts, statistic: Statistic, rng: np.random.Generator) -> Estimate:
    """What a statistic of usage is, given a sample of it.

    By how much samples of this size miss it is found by a parametric bootstrap (Efron & Tibshirani, 1993) from a usage
    whose statistic is known. Which usage is the question where documents are few: clusters without any may be rare or
    not be used at all. So there are two, the observed shares and these shrunk towards uniform. The interval holds those
    of both, and the estimate is corrected by the bias of their mean.
    """
    observed, shrunk = possible = _possible(heldout)
    plugin = float(statistic(observed))
    value = plugin - _bias(heldout, statistic, possible, rng)  # first: generators in one state find the same bias
    # the value less its bias, plus the scatter around that
    errors = [_errors(heldout, statistic, usage, rng) for usage in (observed, shrunk)]
    ends = [plugin - 2 * e.mean() + np.quantile(e, [0.025, 0.975]) for e in errors]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return Estimate(value, min(float(low), value), max(float(high), value), plugin)


def _possible(heldout: Counts) -> Possible:
    """Two usages that the sample could be of: its own shares, and these shrunk towards uniform."""
    uniform = np.full(len(heldout), 1 / len(heldout))
    return heldout / heldout.sum(), shrunk_mass(heldout, uniform, concentration(heldout, uniform))


def _errors(
    heldout: Counts, statistic: Statistic, usage: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[Any]:
    """By how much the statistic of samples of a usage, as large as the one there is, misses that of the usage."""
    samples = int(heldout.sum())
    drawn = rng.multinomial(samples, usage, size=_BOOTSTRAP_DRAWS) / samples
    missed: NDArray[Any] = statistic(drawn) - statistic(usage)
    return missed


def _bias(heldout: Counts, statistic: Statistic, possible: Possible, rng: np.random.Generator) -> float:
    return float(_errors(heldout, statistic, (possible[0] + possible[1]) / 2, rng).mean())


def random_divergence(
    heldout: Counts, current: Counts, capacity: Counts, budget: int, rng: np.random.Generator
) -> Estimate:
    """What a random selection of the same budget would reach: mean and 95 % range of 200 draws."""
    expected = current + budget * capacity / capacity.sum()
    bias = _bias(heldout, lambda usage: jsd(usage, expected / expected.sum()), _possible(heldout), rng)
    training = hypergeometric_quotas(capacity, budget, rng, _RANDOM_DRAWS) + current
    plugin = jsd(heldout / heldout.sum(), training / training.sum(axis=1, keepdims=True))
    values = np.clip(plugin - bias, 0, 1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), float(plugin.mean()))


def certify(
    heldout: Counts, current: Counts, selected: Counts, capacity: Counts, rng: np.random.Generator
) -> dict[str, Any]:
    """The certificate of one owner as plain JSON.

    All arrays have shape (n_bins,): clusters, then the outlier bin. ``before`` and ``reduction`` (before to after) are
    null without current data, and all estimates are null without held-out documents; ``notes`` then say so.
    """
    notes = []
    seed = int(rng.integers(2**63))  # all estimates resample usage alike, so that they can be compared
    if not current.sum():
        notes.append("no current data: there is no divergence before the selection")
    body: dict[str, Any] = {
        "heldout_documents": int(heldout.sum()),
        "current_documents": int(current.sum()),
        "selected_documents": int(selected.sum()),
        "before": None,
        "after": None,
        "random": None,
        "reduction": None,
        "reduction_over_random": None,
    }
    if not heldout.sum():
        notes.append("no held-out target documents: raise target.holdout_fraction or add target data")
    elif selected.sum():
        if current.sum():
            body["before"] = divergence(heldout, current, np.random.default_rng(seed)).to_json()
        body["after"] = divergence(heldout, current + selected, np.random.default_rng(seed)).to_json()
        chance = current + selected.sum() * capacity / max(1, capacity.sum())
        over_random = reduction(heldout, chance, current + selected, np.random.default_rng(seed))
        body["reduction_over_random"] = over_random.to_json()
        if current.sum():
            gained = reduction(heldout, current, current + selected, np.random.default_rng(seed))
            body["reduction"] = gained.to_json()
            if gained.high < 0:
                notes.append(
                    "the selection takes training data farther from usage: the pool has too little of what is asked "
                    "for; lower the budget or widen the pool"
                )
        body["random"] = random_divergence(
            heldout, current, capacity, int(selected.sum()), np.random.default_rng(seed)
        ).to_json()
    return {**body, "notes": notes}
