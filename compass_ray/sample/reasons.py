"""Why a document was selected, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray.languages import language_name
from compass_ray.sample.config import SampleConfig


def about(gap: Mapping[str, Any]) -> str:
    """A cluster's label, and what usage and current data have of it: from a row of the gap table."""
    current = "no current data" if gap["p_current"] is None else f"{gap['p_current']:.1%} of current"
    return f"cluster “{gap['label']}”: {gap['p_target']:.1%} of usage, {current}"


def reason(gap: Mapping[str, Any], asking: Mapping[str, Any] | None, rank: int, config: SampleConfig) -> str:
    """Say what usage asks of the document's cluster, and how the document got into the selection.

    Parameters
    ----------
    gap : mapping
        The row of the gap table (schema ``records.GAP``) of the document's target language and cluster.
    asking : mapping or None
        That of the cluster whose usage the document serves, its own or one near to it; None where none asks for it.
    rank : int
        Among the documents drawn from the cluster, from 1.
    """
    cluster = about(gap)
    if not config.has_cluster_quotas:
        return f"{cluster}; rank {rank} of {gap['drawn']} {config.unit} that '{config.strategy}' drew from it"
    of_quota = f"within its quota of {gap['quota']} tokens" if config.unit == "tokens" else f"of quota {gap['quota']}"
    if not config.transports:
        return f"{cluster}; rank {rank} {of_quota}"
    if asking is None:
        name = language_name(gap["owner"])
        return (
            f"fills the budget with {name}, nearest to its usage first; no quota asks for it ({cluster}; rank {rank})"
        )
    if asking["cluster"] == gap["cluster"]:
        return f"{cluster}; rank {rank} {of_quota}"
    return (
        f"for {about(asking)}, which the pool lacks; near to it and with documents: {cluster}; rank {rank} {of_quota}"
    )
