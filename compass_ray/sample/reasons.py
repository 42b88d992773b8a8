"""Why a document was selected, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray.sample.config import WITH_CLUSTER_QUOTAS, SampleConfig


def about(gap: Mapping[str, Any]) -> str:
    """A cluster's label, and what usage and current data have of it: from a row of the gap table."""
    current = "no current data" if gap["p_current"] is None else f"{gap['p_current']:.1%} of current"
    return f"cluster “{gap['label']}”: {gap['p_target']:.1%} of usage, {current}"


def reason(gap: Mapping[str, Any], rank: int, config: SampleConfig) -> str:
    """What usage asks of the document's cluster, and how the document got into the selection.

    Parameters
    ----------
    gap : mapping
        The row of the gap table (schema ``records.GAP``) of the document's owner and cluster.
    rank : int
        Among the documents drawn from the cluster, from 1.
    """
    cluster = about(gap)
    if config.strategy not in WITH_CLUSTER_QUOTAS:
        return f"{cluster}; rank {rank} of {gap['drawn']} {config.unit} that '{config.strategy}' drew from it"
    if config.unit == "tokens":
        return f"{cluster}; rank {rank} within its quota of {gap['quota']} tokens"
    return f"{cluster}; rank {rank} of quota {gap['quota']}"
