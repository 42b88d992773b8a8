"""Metrics of runs on Ray's Prometheus endpoint, where they carry Ray's prefix: ``ray_compass_rows_total``, ....

Tags are the run's name and the stage, never a shard or a language: their number stays low. The driver counts, since
every receipt passes through it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from compass_ray.runtime.stage_record import StageRecord

_TAGS = ("run", "stage")


@lru_cache(maxsize=1)
def _made() -> dict[str, Any]:
    from ray.util.metrics import Counter, Gauge

    return {
        "rows": Counter("compass_rows_total", "Rows written", _TAGS),
        "shards": Counter("compass_shards_total", "Shards written", _TAGS),
        "seconds": Gauge("compass_stage_seconds", "Seconds that the stage took", _TAGS),
        "peak": Gauge("compass_stage_peak_bytes", "Highest memory of the driver and its local Ray", _TAGS),
    }


def shard_done(run: str, stage: str, rows: int) -> None:
    """Count a shard; Ray must have been joined."""
    tags = {"run": run, "stage": stage}
    if rows:  # Ray refuses to count nothing
        _made()["rows"].inc(rows, tags)
    _made()["shards"].inc(1, tags)


def stage_done(run: str, record: StageRecord) -> None:
    """Report a stage that has been computed; Ray must have been joined."""
    tags = {"run": run, "stage": record.stage}
    _made()["seconds"].set(record.seconds, tags)
    _made()["peak"].set(record.peak_bytes, tags)
