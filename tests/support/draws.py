"""One target language's draw, in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from compass_ray.centering import LanguageMeans
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import keep_best
from compass_ray.sample.near_duplicates import Sameness, duplicates
from compass_ray.sample.target_draw import TargetDraw

UNMOVED = LanguageMeans({})


def finish(
    draw: TargetDraw,
    shards: Sequence[pa.Table],
    vectors: Mapping[bytes, np.ndarray],
    config: SampleConfig,
    sameness: Sameness,
) -> list[int]:
    """Do what the stage does until the draw is settled; returns how many candidates each round asked for."""
    asked = []
    for _ in range(50):
        requests = draw.requests()
        asked.append(sum(requests["quota"].to_pylist()))
        for shard in shards:
            draw.add(keep_best(shard, requests, config.unit))
        undecided = draw.undecided()
        if undecided.num_rows:
            x = np.stack([vectors[doc] for doc in undecided["doc_id"].to_pylist()]).astype(np.float32)
            found = duplicates(undecided, x, UNMOVED, sameness, config.unit)
            draw.decide(undecided["position"].to_numpy(), found)
        if draw.settle():
            return asked
    raise AssertionError("never settled")
