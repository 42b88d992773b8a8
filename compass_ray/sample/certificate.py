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

from compass_ray.sample.divergence import jsd, sampling_bias

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

    Parameters
    ----------
    heldout, training : ndarray of shape (n_bins,), int64
        Documents by cluster; neither may be all zero.
    """
    samples = int(heldout.sum())
    p, q = heldout / samples, training / training.sum()
    plugin = float(jsd(p, q))
    corrected = _corrected(p, q, samples)
    resampled = rng.multinomial(samples, p, size=_BOOTSTRAP_DRAWS) / samples
    # A resample is to the sample what the sample is to the truth, so its spread is around the plug-in value.
    spread = _corrected(resampled, q, samples, clip=False) - plugin
    low, high = np.quantile(corrected + spread, [0.025, 0.975])
    return Estimate(float(corrected), float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1)), plugin)


def random_divergence(
    heldout: Counts, current: Counts, capacity: Counts, budget: int, rng: np.random.Generator
) -> Estimate:
    """What a random selection of the same budget would reach: mean and 95 % range of 200 draws."""
    samples = int(heldout.sum())
    p = heldout / samples
    draws = rng.multivariate_hypergeometric(capacity, budget, size=_RANDOM_DRAWS, method="marginals")
    training = draws + current
    q = training / training.sum(axis=1, keepdims=True)
    values = _corrected(p, q, samples)
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), float(jsd(p, q).mean()))


def _corrected(p: Any, q: Any, samples: int, *, clip: bool = True) -> NDArray[np.float64]:
    value: NDArray[np.float64] = jsd(p, q) - sampling_bias(p, q, samples)
    return np.clip(value, 0.0, 1.0) if clip else value


def certify(
    heldout: Counts, current: Counts, selected: Counts, capacity: Counts, rng: np.random.Generator
) -> dict[str, Any]:
    """The certificate of one owner as plain JSON.

    All arrays have shape (n_bins,): clusters, then the outlier bin. ``before`` is null without current data,
    and all estimates are null without held-out documents; ``note`` then says so.
    """
    notes = []
    if not current.sum():
        notes.append("no current data: there is no divergence before the selection")
    body: dict[str, Any] = {
        "heldout_documents": int(heldout.sum()),
        "current_documents": int(current.sum()),
        "selected_documents": int(selected.sum()),
        "before": None,
        "after": None,
        "random": None,
    }
    if not heldout.sum():
        notes.append("no held-out target documents: raise target.holdout_fraction or add target data")
    elif selected.sum():
        if current.sum():
            body["before"] = divergence(heldout, current, rng).to_json()
        body["after"] = divergence(heldout, current + selected, rng).to_json()
        body["random"] = random_divergence(heldout, current, capacity, int(selected.sum()), rng).to_json()
    return {**body, "notes": notes}
