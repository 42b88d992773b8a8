"""Why a document was selected or outranked, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compass_ray.languages import language_name
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.traits import TRAITS


def about(gap: Mapping[str, Any]) -> str:
    """Write a cluster's label and what usage and current data have of it. All is from a row of the gap table."""
    current = "no current data" if gap["p_current"] is None else f"{gap['p_current']:.1%} of current"
    return f"cluster “{gap['label']}”: {gap['p_usage']:.1%} of usage, {current}"


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
    quota = amount(gap["quota"], config.unit)
    of_quota = f"within its quota of {quota}" if config.unit == "tokens" else f"of quota {quota}"
    if not config.transports:
        return f"{cluster}; rank {rank} {of_quota}"
    if asking is None:
        name = language_name(gap["target_lang"])
        return (
            f"fills the budget with {name}, nearest to its usage first; no quota asks for it ({cluster}; rank {rank})"
        )
    if asking["cluster"] == gap["cluster"]:
        return f"{cluster}; rank {rank} {of_quota}"
    return (
        f"for {about(asking)}, which the pool lacks; near to it and with documents: {cluster}; rank {rank} {of_quota}"
    )


def outranked(nearer: int | None, drawn: int, among: str, target_lang: str) -> str:
    """Say why others of a cell were drawn and a document was not.

    Parameters
    ----------
    nearer : int or None
        How many of them have higher odds to be of usage; the others had a higher random part. None where the draw is
        all random.
    drawn : int
        How many were drawn from the cell.
    among : str
        What a cell is, as "of this language".
    """
    if nearer is None:
        drawn_before = amount(drawn, "documents")
        return f"outranked by chance: all documents {among} were drawn alike, and {drawn_before} before it"
    usage = f"nearer to {language_name(target_lang)} usage"
    luckier = drawn - nearer
    were = "was luckier in the draw" if luckier == 1 else "were luckier in the draw"
    if not nearer:
        lie = "lies" if drawn == 1 else "lie"
        return f"outranked by chance: {amount(drawn, 'documents')} {among} {were} and {lie} no {usage}"
    lie = "lies" if nearer == 1 else "lie"
    told = f"outranked: {amount(nearer, 'documents')} {among} {lie} {usage}"
    return told + (f", and {luckier:,} no nearer {were}" if luckier else "")


def outranked_by_score(drawn: int, lowest: float, strategy: str) -> str:
    """Say why others were drawn and a document was not. Its own score is not kept."""
    score = TRAITS[strategy].score.format(lowest)
    return f"outranked: '{strategy}' drew {amount(drawn, 'documents')}, the last at {score}"


def likeness(config: SampleConfig) -> str:
    """Say what makes a row a near copy of usage."""
    if config.near_duplicates == "off":
        return "the same words"
    return f"the same words, or a cosine of {config.near_duplicate_similarity} and more"


def amount(count: int, unit: str) -> str:
    """Write a count with its unit, as 1 document and 2 documents. The unit is given in the plural."""
    return f"{count:,} {unit.removesuffix('s') if count == 1 else unit}"


def times(count: int) -> str:
    """Write a count of times, as once and 4 times."""
    return "once" if count == 1 else f"{count:,} times"
