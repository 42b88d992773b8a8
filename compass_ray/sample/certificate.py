"""The certificate: how far training data are from usage, before and after, on usage nobody has used.

Divergences compare the held-out usage documents of a target language with what will be trained on, over
clusters and the outlier bin. The training data are known exactly, the held-out documents are a sample:
estimates are corrected for its bias, and intervals hold what usages that it could be a sample of would give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.divergence import jsd
from compass_ray.sample.allocation import hypergeometric_quotas
from compass_ray.usage_shares import concentration, positive, shrunk_shares

FEWEST_HELDOUT = 5
"""Of fewer held-out documents nothing is estimated: intervals that hold the truth would hold almost everything."""

_BOOTSTRAP_DRAWS = 500
_RANDOM_DRAWS = 200
_PLAUSIBLE = 0.5
"""By how much less likely, in log likelihood, a usage may be than the likeliest for the sample not to speak against it:
one standard error."""
_TAILS = (0.025, 0.975)

Counts = NDArray[np.int64]
Vector = NDArray[np.float64]
Statistic = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Estimate:
    """A divergence, or a difference of two, in bits with its 95 % interval; ``plugin`` is without bias correction."""

    jsd: float
    low: float
    high: float
    plugin: float

    def to_json(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 6) for name in ("jsd", "low", "high", "plugin")}


@dataclass(frozen=True)
class HeldOut:
    """Held-out documents by cluster, shape (n_bins,), and the number of independent ones that they are worth.

    Copies of one question are counted as often as they were asked, and tell no more than one: see
    :func:`~compass_ray.usage_shares.effective_number`.
    """

    counts: Counts
    effective: float

    @classmethod
    def distinct(cls, counts: Counts) -> HeldOut:
        """Take the counts of documents without copies."""
        return cls(counts, float(counts.sum()))

    @property
    def shares(self) -> Vector:
        """Of all documents, by cluster."""
        share: Vector = self.counts / self.counts.sum()
        return share

    @property
    def worth(self) -> Vector:
        """Independent documents by cluster."""
        documents: Vector = self.shares * self.effective
        return documents


def divergence(heldout: HeldOut, training: Counts, rng: np.random.Generator) -> Estimate:
    """Estimate the divergence of training data from usage.

    A few dozen documents over a hundred clusters look farther from anything than usage itself is; see
    :func:`_estimate`.

    Parameters
    ----------
    heldout : HeldOut
    training : ndarray of shape (n_bins,), int64
        Documents by cluster; neither may be all zero.
    """
    q = training / training.sum()
    found = _estimate(heldout, lambda usage: jsd(usage, q), [q], rng)
    value, low, high = np.clip([found.jsd, found.low, found.high], 0, 1)
    return Estimate(float(value), float(low), float(high), found.plugin)


def reduction(heldout: HeldOut, one: NDArray[Any], other: NDArray[Any], rng: np.random.Generator) -> Estimate:
    """Estimate by how much ``other`` is nearer to usage than ``one``.
    That is JSD(one) - JSD(other), in [-1, 1], with its interval.

    Both are compared with the same resampled usage, whose scatter they share for the most part: the interval is much
    narrower than those of the two divergences, and it is the one to ask whether a selection helps.

    Parameters
    ----------
    heldout : HeldOut
    one, other : ndarray of shape (n_bins,), float64
        Shares or counts of training data.
    """
    p, q = one / one.sum(), other / other.sum()
    beyond = np.maximum(2 * q - p, 0)  # usage is where the data move, or farther
    return _estimate(heldout, lambda usage: jsd(usage, p) - jsd(usage, q), [p, q, beyond / beyond.sum()], rng)


def _estimate(heldout: HeldOut, statistic: Statistic, like: Sequence[Vector], rng: np.random.Generator) -> Estimate:
    """Estimate a statistic of usage, given a sample of it.

    By how much samples of this size miss it is found by a parametric bootstrap from a usage whose statistic is known
    (Davison & Hinkley, 1997). Which usage is the question where documents are few: clusters without any may be rare,
    or not used at all, or used as much as training data have them. The interval holds those of all usages that the
    sample does not speak against (:func:`_plausible`); how often it then holds the truth is in
    ``benchmarks/results/2026-11-28-selection.md``. The estimate is corrected by the mean bias of the observed shares
    and of these shrunk.
    """
    observed = statistic(heldout.shares)
    plugin = float(np.mean(observed))
    value = plugin - _bias(heldout, statistic, rng)  # first: generators in one state find the same bias
    ends = [value, value]
    for usage in _plausible(heldout, like):
        errors = _errors(heldout, statistic, usage, rng)
        scatter = observed - errors  # the basic interval
        around = observed - 2 * errors.mean() + errors  # less its bias, and as skewed as samples are
        ends += [*np.quantile(scatter, _TAILS), *np.quantile(around, _TAILS)]
    return Estimate(value, float(min(ends)), float(max(ends)), plugin)


def _plausible(heldout: HeldOut, like: Sequence[Vector]) -> Iterator[Vector]:
    """Yield the usages that the sample could be of.

    They are its own shares, and these moved towards uniform and towards each ``like``. The shares are moved once as far
    as Dirichlet-multinomial counts allow within half a unit of log likelihood, and once by the share of usage that lies
    in clusters without a document: as much as there is in clusters with a single one (Good, 1953), and at least what so
    many documents may all have missed with a chance of 2.5 %.
    """
    observed = heldout.shares
    yield observed
    counts = heldout.worth
    single = float(observed[counts <= 1].sum())
    unseen = max(single, 1 - _TAILS[0] ** (1 / heldout.effective))
    for towards in (_uniform(observed), *like):
        base = positive(towards)
        yield shrunk_shares(counts, base, concentration(counts, base, within=_PLAUSIBLE))
        yield (1 - unseen) * observed + unseen * base


def _uniform(shares: Vector) -> Vector:
    return np.full(len(shares), 1 / len(shares))


def _errors(heldout: HeldOut, statistic: Statistic, usage: Vector, rng: np.random.Generator) -> NDArray[Any]:
    """Compute by how much samples of a usage miss its statistic. Each is worth as much as the sample there is."""
    samples = max(1, round(heldout.effective))
    drawn = rng.multinomial(samples, usage, size=_BOOTSTRAP_DRAWS) / samples
    missed: NDArray[Any] = statistic(drawn) - statistic(usage)
    return missed


def _bias(heldout: HeldOut, statistic: Statistic, rng: np.random.Generator) -> float:
    counts, uniform = heldout.worth, _uniform(heldout.shares)
    shrunk = shrunk_shares(counts, uniform, concentration(counts, uniform))
    return float(_errors(heldout, statistic, (heldout.shares + shrunk) / 2, rng).mean())


def random_divergence(
    heldout: HeldOut, current: Counts, capacity: Counts, budget: int, rng: np.random.Generator
) -> Estimate:
    """Estimate what a random selection of the same budget would reach. It is the mean and 95 % range of 200 draws."""
    expected = current + budget * capacity / capacity.sum()
    bias = _bias(heldout, lambda usage: jsd(usage, expected / expected.sum()), rng)
    plugin = jsd(heldout.shares, _at_random(current, capacity, budget, rng))
    values = np.clip(plugin - bias, 0, 1)
    low, high = np.quantile(values, _TAILS)
    return Estimate(float(values.mean()), float(low), float(high), float(plugin.mean()))


def _at_random(current: Counts, capacity: Counts, budget: int, rng: np.random.Generator) -> Vector:
    """Compute shares of current data and random selections together, shape (draws, n_bins)."""
    training = hypergeometric_quotas(capacity, budget, rng, _RANDOM_DRAWS) + current
    shares: Vector = training / training.sum(axis=1, keepdims=True)
    return shares


def over_random(
    heldout: HeldOut, current: Counts, selected: Counts, capacity: Counts, rng: np.random.Generator
) -> Estimate:
    """Estimate by how much a selection is nearer to usage than random ones.

    They are of its size, and the value is in [-1, 1]. The interval is over the scatter of random selections and of the
    sample of usage together, so that a selection that is itself drawn at random has 0 in it as often as it says.
    """
    after = current + selected
    q = after / after.sum()
    random = _at_random(current, capacity, int(selected.sum()), rng)
    each = random[np.arange(_BOOTSTRAP_DRAWS) % _RANDOM_DRAWS]  # a draw beside every resample of usage
    return _estimate(heldout, lambda usage: jsd(usage, each) - jsd(usage, q), [q, random.mean(axis=0)], rng)


def certify(
    heldout: HeldOut, current: Counts, selected: Counts, capacity: Counts, rng: np.random.Generator
) -> dict[str, Any]:
    """Make the certificate of one target language as plain JSON.

    All arrays have shape (n_bins,): clusters, then the outlier bin. ``before`` and ``reduction`` (before to after) are
    null without current data, and all estimates are null with fewer than :data:`FEWEST_HELDOUT` held-out documents,
    copies counted once for what they tell; ``notes`` then say so.
    """
    notes = []
    seed = int(rng.integers(2**63))  # all estimates resample usage alike, so that they can be compared
    if not current.sum():
        notes.append("no current data: there is no divergence before the selection")
    body: dict[str, Any] = {
        "heldout_documents": int(heldout.counts.sum()),
        "heldout_effective": round(heldout.effective, 1),
        "current_documents": int(current.sum()),
        "selected_documents": int(selected.sum()),
        "before": None,
        "after": None,
        "random": None,
        "reduction": None,
        "reduction_over_random": None,
    }
    if not heldout.counts.sum():
        notes.append("no held-out usage documents: raise holdout_fraction or add usage")
    elif heldout.effective < FEWEST_HELDOUT:
        worth = "" if heldout.effective == heldout.counts.sum() else f", worth {heldout.effective:.1f} without copies"
        notes.append(
            f"insufficient: {int(heldout.counts.sum()):,} held-out usage documents{worth}, and at least "
            f"{FEWEST_HELDOUT} are needed to estimate anything; raise holdout_fraction or add usage"
        )
    elif selected.sum():
        if current.sum():
            body["before"] = divergence(heldout, current, np.random.default_rng(seed)).to_json()
            gained = reduction(heldout, current, current + selected, np.random.default_rng(seed))
            body["reduction"] = gained.to_json()
            if gained.high < 0:
                notes.append(
                    "the selection takes training data farther from usage: the pool has too little of what is asked "
                    "for; lower the budget or widen the pool"
                )
        if not (selected.astype(bool) & heldout.counts.astype(bool)).any():
            notes.append(
                "no selected document lies in a cluster of held-out usage: the pool has nothing like it; widen the pool"
            )
        body["after"] = divergence(heldout, current + selected, np.random.default_rng(seed)).to_json()
        chance = over_random(heldout, current, selected, capacity, np.random.default_rng(seed))
        body["reduction_over_random"] = chance.to_json()
        body["random"] = random_divergence(
            heldout, current, capacity, int(selected.sum()), np.random.default_rng(seed)
        ).to_json()
    return {**body, "notes": notes}
