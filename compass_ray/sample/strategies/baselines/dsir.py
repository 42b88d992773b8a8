"""``dsir``: importance of documents by hashed n-grams (Xie et al., 2023, arXiv 2302.03169), on texts alone.

The yardstick that does not know languages: words of another language than the target language's share no n-grams with
usage.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.ngrams import hashed_ngrams, importance
from compass_ray.sample.scorer import Keys, Question, Scorer, noise
from compass_ray.sample.shard import Positions, Shard
from compass_ray.sample.strategies.base import best_of_pool


class HashedNgrams(Scorer):
    """Log importance weight of the document's n-grams, and Gumbel noise: a weighted sample without replacement.

    What is gathered are counts of buckets in usage and in the pool, shape (2, buckets).
    """

    def missing(self, question: Question, known: Any) -> bool:
        """Tell whether the one pass is still to be made."""
        return known is None

    def gather(self, shard: Shard, question: Question, known: Any) -> Any:
        """Count the shard's n-grams by bucket."""
        usage = hashed_ngrams(shard.texts(shard.usage(question.target_lang)))
        pool = _features(shard, shard.pool(question.target_lang))
        return np.vstack([np.asarray(part.sum(axis=0), dtype=np.int64).reshape(1, -1) for part in (usage, pool)])

    def merge(self, one: Any, other: Any) -> Any:
        """Add up counts."""
        return one + other

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Any) -> Keys:
        """Compute log weights plus noise."""
        scores: Keys = np.asarray(_features(shard, positions) @ importance(known[0], known[1])).ravel()
        return scores + noise(shard, positions, target_lang)


def _features(shard: Shard, positions: Positions) -> Any:
    """Compute features of pool documents, once for all target languages. Few are barred for some of them only."""
    if "ngrams" not in shard.memo:
        pool = np.flatnonzero(np.asarray(shard.assignments["role"].to_pylist(), dtype=object) == "pool")
        place = np.full(shard.assignments.num_rows, -1)
        place[pool] = np.arange(len(pool))
        shard.memo["ngrams"] = hashed_ngrams(shard.texts(pool)), place
    features, place = shard.memo["ngrams"]
    return features[place[positions]]


def _scorer(config: SampleConfig) -> Scorer:
    return HashedNgrams()


STRATEGY = best_of_pool(_scorer)
