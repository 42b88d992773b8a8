"""The certificate: how far training data are from usage, before and after, on usage nobody has used.

Divergences compare the held-out target documents of an owner with what will be trained on, over
clusters and the outlier bin. The training data are known exactly, the held-out documents are a sample:
estimates are corrected for its bias and intervals resample it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.mass import concentration, shrunk_mass
from compass_ray.sample.allocation import hypergeometric_quotas
from compass_ray.sample.divergence import jsd

_BOOTSTRAP_DRAWS = 1000
_RANDOM_DRAWS = 200

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A divergence in bits with its 95 % interval; ``plugin`` is the value without bias correction."""

    jsd: float
    low: float
    high: float
    plugin: float

    def to_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 6) for name in ("jsd", "low", "high", "plugin")}


def divergence(heldout: Counts, training: Counts, rng: np.random.Generator) -> Estimate:
    """Divergence of training data from usage.

    A few dozen documents over a hundred clusters look farther from anything than usage itself is. By how much is
    found by a parametric bootstrap (Efron & Tibshirani, 1993): samples of the same size are drawn from the held-out
    shares shrunk towards uniform, whose divergence is known. In simulations of 85 documents over 100 clusters the
    interval holds the truth 80-95 % of the time, at 600 documents 97 %.

    Parameters
    ----------
    heldout, training : ndarray of shape (n_bins,), int64
        Documents by cluster; neither may be all zero.
    """
    q = training / training.sum()
    plugin = float(jsd(heldout / heldout.sum(), q))
    bias, spread = _sampling_error(heldout, q, rng)
    low, high = np.clip(plugin - bias + np.quantile(spread, [0.025, 0.975]), 0, 1)
    return Estimate(float(np.clip(plugin - bias, 0, 1)), float(low), float(high), plugin)


def reduction(heldout: Counts, one: NDArray[Any], other: NDArray[Any], rng: np.random.Generator) -> dict[str, float]:
    """By how much ``other`` is nearer to usage than ``one``: JSD(one) - JSD(other), in [-1, 1], with its interval.

    Both are compared with the same resampled usage, whose scatter they share for the most part: the interval is much
    narrower than those of the two divergences, and it is the one to ask whether a selection helps.

    Parameters
    ----------
    heldout : ndarray of shape (n_bins,), int64
    one, other : ndarray of shape (n_bins,), float64
        Shares or counts of training data.
    """
    samples = int(heldout.sum())
    usage = _usage(heldout)
    p, q = one / one.sum(), other / other.sum()
    drawn = rng.multinomial(samples, usage, size=_BOOTSTRAP_DRAWS) / samples
    values = jsd(drawn, p) - jsd(drawn, q)
    observed = heldout / samples
    plugin = float(jsd(observed, p) - jsd(observed, q))
    estimate = plugin - float(values.mean() - (jsd(usage, p) - jsd(usage, q)))
    low, high = estimate + np.quantile(values - values.mean(), [0.025, 0.975])
    found = {"jsd": estimate, "low": float(low), "high": float(high), "plugin": plugin}
    return {name: round(value, 6) for name, value in found.items()}


def random_divergence(
    heldout: Counts, current: Counts, capacity: Counts, budget: int, rng: np.random.Generator
) -> Estimate:
    """What a random selection of the same budget would reach: mean and 95 % range of 200 draws."""
    total = current.sum() + budget
    bias, _ = _sampling_error(heldout, (current + budget * capacity / capacity.sum()) / total, rng)
    training = hypergeometric_quotas(capacity, budget, rng, _RANDOM_DRAWS) + current
    q = training / training.sum(axis=1, keepdims=True)
    plugin = jsd(heldout / heldout.sum(), q)
    values = np.clip(plugin - bias, 0, 1)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), float(plugin.mean()))


def _sampling_error(heldout: Counts, q: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, Any]:
    """By how much samples of usage exceed its divergence from q on average, and how they scatter around that."""
    samples = int(heldout.sum())
    usage = _usage(heldout)
    values = jsd(rng.multinomial(samples, usage, size=_BOOTSTRAP_DRAWS) / samples, q)
    return float(values.mean() - jsd(usage, q)), values - values.mean()


def _usage(heldout: Counts) -> NDArray[np.float64]:
    """What held-out usage may be a sample of: its shares shrunk towards uniform."""
    uniform = np.full(len(heldout), 1 / len(heldout))
    return shrunk_mass(heldout, uniform, concentration(heldout, uniform))


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
        body["reduction_over_random"] = reduction(heldout, chance, current + selected, np.random.default_rng(seed))
        if current.sum():
            body["reduction"] = reduction(heldout, current, current + selected, np.random.default_rng(seed))
        body["random"] = random_divergence(
            heldout, current, capacity, int(selected.sum()), np.random.default_rng(seed)
        ).to_json()
    return {**body, "notes": notes}
