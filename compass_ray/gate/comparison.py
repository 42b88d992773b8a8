"""How much better a candidate predicts documents than the champion, and how sure that is.

Both are measured on the same documents, so what counts is the gain of each: bits per byte of the champion less those of
the candidate. Positive is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from compass_ray import seeding

Vector = NDArray[np.float64]

_ROUNDING = 1e-9
"""Bits per byte. Gains that differ by less are alike: the rest is rounding of sums."""
_LOST = 1e-12
"""Of a sum of squares: what a difference of such sums cannot tell from nothing."""
_AT_ONCE = 2_000_000
"""Counts held at once, 16 MB of them."""


@dataclass(frozen=True)
class Comparison:
    """The mean gain over documents, in bits per byte.

    Attributes
    ----------
    mean, low, high : float
        With its interval; an end is infinite where nothing bounds it.
    documents : int
        Different ones.
    effective : float
        How many equally weighted documents say as much (Kish, 1965).
    blocks : int
        Groups of documents that are independent of each other.
    p_worse : float
        Of the hypothesis that the mean gain of the population is the threshold or more.
    """

    mean: float
    low: float
    high: float
    documents: int
    effective: float
    blocks: int
    p_worse: float

    @property
    def is_bounded(self) -> bool:
        """Whether there is an interval at all."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON; an end that nothing bounds is None."""
        return {
            "mean": round(self.mean, 6),
            "low": round(self.low, 6) if math.isfinite(self.low) else None,
            "high": round(self.high, 6) if math.isfinite(self.high) else None,
            "documents": self.documents,
            "effective": round(self.effective, 1),
            "blocks": self.blocks,
        }


def compare(
    gains: Vector,
    weights: Vector,
    blocks: NDArray[np.int64],
    seed: int,
    *purpose: str,
    confidence: float = 0.95,
    resamples: int = 10_000,
    threshold: float = 0.0,
) -> Comparison:
    """Estimate the weighted mean gain, its interval and whether it is below a threshold.

    Two intervals are reckoned over blocks, and each end is the one that lies further out. The first is Student's t with
    the jackknife's standard error over blocks (CR3: Bell & McCaffrey, 2002) and, for degrees of freedom, the
    effective number of blocks less one, so that a few large blocks are not taken for many. It is narrow where gains are
    skewed. The second, the bootstrap-t over blocks (Efron & Tibshirani, 1993, section 12.5), follows skew, and is
    narrow where blocks are few or tails are heavy. A percentile bootstrap is narrower than both.
    In 1,000 simulations each, intervals of 95 % held the truth in 0.945 to 0.972 of the cases for 30, 60 and 200
    documents, independent or in ten blocks of unequal size, with normal and exponential gains, of equal and unequal
    weights (``tests/gate/test_comparison.py`` has 400 each). It was 0.92 where what ten blocks have in common is
    exponential too, and with lognormal gains of unequal weights (400 each). No interval knows of harm that so few
    documents are unlikely to show.

    Gains that are all alike have no spread to reckon with, and documents of one block no second one to compare it with:
    the interval is then without bounds, not without width, and nothing is proved by it.

    Parameters
    ----------
    gains : ndarray of shape (n,), float64
        Of different documents, finite; at least one.
    weights : ndarray of shape (n,), float64
        Above zero; their sum does not matter.
    blocks : ndarray of shape (n,), int64
        Number of the block of each, from 0; documents of one block are not independent.
    seed : int
        Of the run.
    *purpose : str
        What is compared; draws follow from the seed and these words.
    confidence : float
        Of the interval, within (0, 1).
    resamples : int
        Draws; at least ``2 / (1 - confidence)``.
    threshold : float
        Bits per byte; see ``p_worse``.

    Returns
    -------
    Comparison
        Cost: ``resamples`` draws of as many counts as there are blocks; for 10,000 draws 2 s of one core with
        1,000 blocks, 10 s with 5,000.
    """
    weights = weights / weights.sum()
    n_blocks = int(blocks.max()) + 1
    size = _by_block(blocks, weights, n_blocks)
    total = _by_block(blocks, weights * gains, n_blocks)
    mean = float(total.sum())
    counts = len(gains), float(1 / np.sum(weights**2)), n_blocks
    error = _jackknife_error(size, total, mean)
    if not error > _ROUNDING:
        return Comparison(mean, -math.inf, math.inf, *counts, 1.0)
    freedom = max(1 / float(np.sum(size**2)) - 1, 1.0)
    rng = np.random.default_rng(seeding.child_seed(seed, "gate", *purpose))
    drawn = _studentised(size, total - mean * size, resamples, rng)
    outside = max(1, int((1 - confidence) / 2 * (resamples + 1)))
    wide = float(student.ppf((1 + confidence) / 2, freedom))
    below, above = max(wide, float(drawn[-outside])), min(-wide, float(drawn[outside - 1]))
    found = (mean - threshold) / error
    p_drawn = (1 + np.searchsorted(drawn, found, side="right")) / (1 + resamples)
    p_worse = min(1.0, max(float(student.cdf(found, freedom)), float(p_drawn)))
    return Comparison(mean, mean - below * error, mean - above * error, *counts, p_worse)


def _by_block(blocks: NDArray[np.int64], values: Vector, n_blocks: int) -> Vector:
    return np.bincount(blocks, values, n_blocks).astype(np.float64)


def _jackknife_error(size: Vector, total: Vector, mean: float) -> float:
    """Compute the standard error of the mean by leaving out one block at a time; 0 for a single one."""
    if len(size) < 2:
        return 0.0
    without = (mean - total) / (1 - size)
    return float(np.sqrt((len(size) - 1) * np.var(without)))


def _studentised(size: Vector, residual: Vector, resamples: int, rng: np.random.Generator) -> Vector:
    """Draw blocks with replacement, and compute by how many of its own standard errors each mean is off; sorted."""
    n_blocks = len(size)
    columns = np.stack([size, residual, residual**2, residual * size, size**2], axis=1)
    drawn = []
    for start in range(0, resamples, step := max(1, _AT_ONCE // n_blocks)):
        count = min(step, resamples - start)
        times = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=count)
        weight, off, squares, products, sizes = (times @ columns).T
        off = off / weight
        variance = (squares - 2 * off * products + off**2 * sizes) * n_blocks / (n_blocks - 1)
        variance[variance <= _LOST * squares] = 0  # all blocks drawn are alike: what is left is rounding
        error = np.sqrt(np.maximum(variance, 0)) / weight
        unbounded = np.where(off > 0, np.inf, np.where(off < 0, -np.inf, 0.0))
        drawn.append(np.divide(off, error, out=unbounded, where=error > 0))
    return np.sort(np.concatenate(drawn))
