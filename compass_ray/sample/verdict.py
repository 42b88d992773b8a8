"""Why a document was or was not drawn for an owner, found out after the fact from what the sample stage left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import seeding
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.reasons import about, reason
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies import STRATEGIES
from compass_ray.sample.usage_contrast import Direction, UsageContrast


@dataclass(frozen=True)
class Verdict:
    """Whether a document is in an owner's selection, and why."""

    owner: str
    selected: bool
    reason: str


@dataclass(frozen=True)
class Drawing:
    """What the sample stage left of a run: who was drawn and passed over, the gaps, and what is behind them."""

    drawn: pa.Table
    suppressed: pa.Table
    gaps: pa.Table
    directions: Mapping[str, Direction]  # by owner; of draws towards usage only
    config: SampleConfig
    seed: int

    @property
    def owners(self) -> list[str]:
        """Who has a selection."""
        return sorted(pc.unique(self.gaps["owner"]).to_pylist())


def verdict(
    assignment: Mapping[str, Any],
    vector: NDArray[np.float32],
    same_content: pa.Table,
    threshold: float,
    owner: str,
    of: Drawing,
) -> Verdict:
    """Why a pool document is or is not in an owner's selection.

    Parameters
    ----------
    assignment : mapping
        Its row of schema ASSIGNMENT.
    vector : ndarray of shape (d,), float32
        Its unit vector.
    same_content : Table of schema ASSIGNMENT
        All rows with the same content, its own among them.
    threshold : float
        Similarity below which a document of its language is an outlier.
    of : Drawing
    """
    mine = pc.and_(pc.equal(of.drawn["owner"], owner), pc.equal(of.drawn["cluster"], assignment["cluster"]))
    cluster = of.drawn.filter(mine)
    gaps = of.gaps.filter(pc.equal(of.gaps["owner"], owner)).to_pylist()
    gap = next(gap for gap in gaps if gap["cluster"] == assignment["cluster"])
    drawn = {row["doc_id"]: row for row in cluster.select(["doc_id", "rank", "asked_by"]).to_pylist()}
    if row := drawn.get(assignment["doc_id"]):
        asking = next((one for one in gaps if one["cluster"] == row["asked_by"]), None)
        return Verdict(owner, True, reason(gap, asking, row["rank"], of.config))
    why = (
        _repeats(same_content, owner)
        or _outlies(assignment, threshold)
        or _nearly_repeats(assignment, owner, of)
        or _is_outranked(assignment, vector, owner, gap, cluster, of)
    )
    return Verdict(owner, False, why)


def _repeats(same_content: pa.Table, owner: str) -> str | None:
    for row in same_content.to_pylist():
        if row["role"] == "target":
            return f"not eligible: the same text is usage of '{row['owner']}'; trained on, it would leak into training"
        if row["role"] == "current" and row["owner"] == owner:
            return "not eligible: the same text is in the owner's current data and is trained on anyway"
    return None


def _outlies(assignment: Mapping[str, Any], threshold: float) -> str | None:
    if not assignment["outlier"]:
        return None
    return (
        f"not eligible: an outlier; its similarity to the nearest cluster is {assignment['similarity']:.3f}, below "
        f"{threshold:.3f} for language '{assignment['lang']}'"
    )


def _nearly_repeats(assignment: Mapping[str, Any], owner: str, of: Drawing) -> str | None:
    mine = pc.and_(pc.equal(of.suppressed["owner"], owner), pc.equal(of.suppressed["doc_id"], assignment["doc_id"]))
    rows = of.suppressed.filter(mine).to_pylist()
    if not rows:
        return None
    better = f"document {rows[0]['duplicate_of'].hex()}"
    if rows[0]["copy"]:
        return (
            f"passed over: it says in another language what {better} says, and {of.config.max_copies} documents of "
            "that meaning were drawn before it (sample.max_copies)"
        )
    return (
        f"passed over: it nearly repeats {better} (similarity above {of.config.near_duplicate_similarity}), which was "
        "drawn before it"
    )


def _is_outranked(
    assignment: Mapping[str, Any],
    vector: NDArray[np.float32],
    owner: str,
    gap: Mapping[str, Any],
    cluster: pa.Table,
    of: Drawing,
) -> str:
    if of.config.has_cluster_quotas:
        if not gap["quota"]:
            return f"not asked for: {about(gap)}; its quota is 0"
        rivals, where = (
            cluster.filter(pc.equal(cluster["lang"], assignment["lang"])),
            f"from its language and {about(gap)}",
        )
    else:
        rivals, where = of.drawn.filter(pc.equal(of.drawn["owner"], owner)), f"by '{of.config.strategy}'"
    if of.config.transports:  # rows that fill the budget have other keys
        rivals = rivals.filter(rivals["asked_by"].is_valid())
    if not rivals.num_rows:
        return f"not asked for: {about(gap)}; language '{assignment['lang']}' got none of its quota of {gap['quota']}"
    lowest = float(pc.min(rivals["key"]).as_py())
    key = key_of(assignment["doc_id"], vector, owner, of)
    own = "its key" if key is None else f"its key {key:.4f}"
    return f"outranked: {own} is below the lowest of those drawn {where}: {lowest:.4f} ({rivals.num_rows} drawn)"


def key_of(doc_id: bytes, vector: NDArray[np.float32], owner: str, of: Drawing) -> float | None:
    """The key that a document had in the draw; None where keys come from evidence that is not kept."""
    scorer = STRATEGIES[of.config.strategy].scorer(of.config)
    ids = np.frombuffer(doc_id, dtype=np.uint8)[None]
    noise = float(seeding.gumbel(ids, of.seed, "draw", owner)[0])
    if isinstance(scorer, UsageContrast):
        return noise + float(scorer.log_weights(vector[None], of.directions[owner])[0])
    return noise if type(scorer) is Scorer else None
