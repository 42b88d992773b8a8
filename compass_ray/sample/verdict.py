"""Why a document was or was not drawn for a target language, found out from what the sample stage left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.languages import language_name
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.reasons import about, amount, outranked, outranked_by_score, reason, times
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.usage_contrast import Direction, UsageContrast, products

_ROUNDING = 1e-9
"""By how much log odds may differ that come from a key less its noise."""


@dataclass(frozen=True)
class SelectionVerdict:
    """Whether a document is in a target language's selection, and why."""

    target_lang: str
    selected: bool
    reason: str


@dataclass(frozen=True)
class Drawing:
    """What the sample stage left of a run: who was drawn and passed over, the gaps, and what is behind them."""

    drawn: pa.Table
    suppressed: pa.Table
    gaps: pa.Table
    directions: Mapping[str, Direction]  # by target language; of draws towards usage only
    config: SampleConfig
    seed: int
    trained: pa.Table | None = None  # target language (null: all) and content of what an update does not draw again

    @property
    def target_langs(self) -> list[str]:
        """Who has a selection."""
        return sorted(pc.unique(self.gaps["target_lang"]).to_pylist())


def verdict(
    assignment: Mapping[str, Any],
    vector: NDArray[np.float32],
    same_content: pa.Table,
    near_usage: pa.Table,
    threshold: float,
    target_lang: str,
    of: Drawing,
) -> SelectionVerdict:
    """Say why a pool document is or is not in a target language's selection.

    Parameters
    ----------
    assignment : mapping
        Its row of schema ASSIGNMENT.
    vector : ndarray of shape (d,), float32
        Its unit vector.
    same_content : Table of schema ASSIGNMENT
        All rows with the same content, its own among them.
    near_usage : Table of schema NEAR_USAGE
        What usage it nearly repeats.
    threshold : float
        Similarity below which a document of its language is an outlier.
    of : Drawing
    """
    mine = pc.and_(pc.equal(of.drawn["target_lang"], target_lang), pc.equal(of.drawn["cluster"], assignment["cluster"]))
    cluster = of.drawn.filter(mine)
    gaps = of.gaps.filter(pc.equal(of.gaps["target_lang"], target_lang)).to_pylist()
    gap = next(gap for gap in gaps if gap["cluster"] == assignment["cluster"])
    drawn = {row["doc_id"]: row for row in cluster.select(["doc_id", "rank", "asked_by"]).to_pylist()}
    if row := drawn.get(assignment["doc_id"]):
        asking = next((one for one in gaps if one["cluster"] == row["asked_by"]), None)
        return SelectionVerdict(target_lang, True, reason(gap, asking, row["rank"], of.config))
    why = (
        _repeats(same_content, target_lang)
        or _was_trained_on(assignment, target_lang, of)
        or _nearly_repeats_usage(near_usage, target_lang, of)
        or _outlies(assignment, threshold)
        or _nearly_repeats(assignment, target_lang, of)
        or _is_outranked(assignment, vector, target_lang, gap, cluster, of)
    )
    return SelectionVerdict(target_lang, False, why)


def _repeats(same_content: pa.Table, target_lang: str) -> str | None:
    for row in same_content.to_pylist():
        if row["role"] == "usage":
            usage = f"usage of {language_name(row['target_lang'])}"
            return f"not eligible: the same text is {usage}; trained on, it would leak into training"
        if row["role"] == "current" and row["target_lang"] == target_lang:
            return "not eligible: the same text is in the target language's current data and is trained on anyway"
    return None


def _was_trained_on(assignment: Mapping[str, Any], target_lang: str, of: Drawing) -> str | None:
    if of.trained is None:
        return None
    langs = of.trained.filter(pc.equal(of.trained["content_id"], assignment["content_id"]))["target_lang"].to_pylist()
    if None in langs:
        return (
            "not eligible: the same text was held out of an earlier adapter, or nearly repeats usage that one was made "
            "for; trained on, it would leak into what adapters are measured on"
        )
    if target_lang in langs:
        return "not eligible: the adapter that is updated was trained on the same text before"
    return None


def _nearly_repeats_usage(near_usage: pa.Table, target_lang: str, of: Drawing) -> str | None:
    rows = near_usage.filter(pc.equal(near_usage["target_lang"], target_lang)).to_pylist()
    if not rows:
        return None
    usage = f"{language_name(target_lang)} usage (document {rows[0]['usage'].hex()})"
    if rows[0]["same_words"]:
        why = f"but for case, punctuation or spelling it is {usage}"
    else:
        why = f"it lies at a cosine of {of.config.near_duplicate_similarity} or more to {usage}"
    return f"not eligible: {why}; trained on, it would leak into training"


def _outlies(assignment: Mapping[str, Any], threshold: float) -> str | None:
    if not assignment["outlier"]:
        return None
    return (
        f"not eligible: an outlier; it lies at cosine {assignment['similarity']:.3f} to the nearest cluster, below the "
        f"{threshold:.3f} that documents in {language_name(assignment['lang'])} need"
    )


def _nearly_repeats(assignment: Mapping[str, Any], target_lang: str, of: Drawing) -> str | None:
    mine = pc.and_(
        pc.equal(of.suppressed["target_lang"], target_lang), pc.equal(of.suppressed["doc_id"], assignment["doc_id"])
    )
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
        f"passed over: it nearly repeats {better} (cosine above {of.config.near_duplicate_similarity}), which was "
        "drawn before it"
    )


def _is_outranked(
    assignment: Mapping[str, Any],
    vector: NDArray[np.float32],
    target_lang: str,
    gap: Mapping[str, Any],
    cluster: pa.Table,
    of: Drawing,
) -> str:
    if why := _fill_went_to_others(assignment, vector, target_lang, of):
        return why
    rivals, among = _rivals(assignment, target_lang, cluster, of)
    if not rivals.num_rows and _own_came_first(assignment["lang"], target_lang, gap, of):
        return (
            f"not asked for: {language_name(target_lang)} of any cluster comes before other languages "
            f"(sample.shortfall: own_language), and drawn or trained on up to {times(of.config.own_language_epochs)} "
            f"(sample.own_language_epochs) it left too little of the budget; {about(gap)}"
        )
    if of.config.has_cluster_quotas and not gap["quota"]:
        return f"not asked for: {about(gap)}; its quota is {amount(0, of.config.unit)}"
    if not rivals.num_rows:
        lang = language_name(assignment["lang"])
        if not of.config.has_cluster_quotas:
            return f"not asked for: {lang} got none of the budget by '{of.config.strategy}'"
        quota = amount(gap["quota"], of.config.unit)
        return f"not asked for: {about(gap)}; {lang} got none of the cluster's quota of {quota}"
    lowest = float(pc.min(rivals["key"]).as_py())
    key = key_of(assignment["doc_id"], vector, target_lang, of)
    if key is None:
        return outranked_by_score(rivals.num_rows, lowest, of.config.strategy)
    nearer = _nearer_to_usage(rivals, vector, target_lang, of)
    keys = f"key {key:.4f}, the lowest drawn {lowest:.4f}"
    return f"{outranked(nearer, rivals.num_rows, among, target_lang)} ({keys}); {about(gap)}"


def _fill_went_to_others(
    assignment: Mapping[str, Any], vector: NDArray[np.float32], target_lang: str, of: Drawing
) -> str | None:
    """Say why an own-language row does not even fill the budget. None for other rows, and where nothing was filled."""
    if of.config.on_shortfall != "own_language" or assignment["lang"] != target_lang:
        return None
    fill = of.drawn.filter(pc.and_(pc.equal(of.drawn["target_lang"], target_lang), of.drawn["asked_by"].is_null()))
    if not fill.num_rows:
        return None
    name, own = language_name(target_lang), float(products(vector[None], of.directions[target_lang].vector)[0])
    nearer = int((fill["key"].to_numpy() >= own).sum())
    return (
        f"outranked: no cluster quota took it, and {amount(nearer, 'documents')} in {name} that fill the budget lie "
        f"nearer to {name} usage (log odds {own:.3f}, the lowest drawn {pc.min(fill['key']).as_py():.3f})"
    )


def _own_came_first(lang: str, target_lang: str, gap: Mapping[str, Any], of: Drawing) -> bool:
    """Tell whether own-language rows of other clusters came first.
    They took what a cluster asks for and other languages hold.
    """
    if not of.config.own_before_others or lang == target_lang or not gap["unmet"]:
        return False
    mine = of.drawn.filter(pc.equal(of.drawn["target_lang"], target_lang))
    return bool(pc.any(pc.equal(mine["lang"], target_lang)).as_py())


def _rivals(assignment: Mapping[str, Any], target_lang: str, cluster: pa.Table, of: Drawing) -> tuple[pa.Table, str]:
    """Find what was drawn from the document's cell. What a cell is comes with it, in words."""
    if of.config.has_cluster_quotas:
        mine = cluster.filter(pc.equal(cluster["lang"], assignment["lang"]))
        if of.config.transports:  # rows that fill the budget were not drawn from the cell
            mine = mine.filter(mine["asked_by"].is_valid())
        return mine, "of this cluster and language"
    mine = of.drawn.filter(pc.equal(of.drawn["target_lang"], target_lang))
    if of.config.traits.decides == "language":
        return mine.filter(pc.equal(mine["lang"], assignment["lang"])), "of this language"
    return mine, "of the pool"


def _nearer_to_usage(rivals: pa.Table, vector: NDArray[np.float32], target_lang: str, of: Drawing) -> int | None:
    """Count the drawn documents with higher log odds to be of usage. None where chance alone decides."""
    scorer = strategy_of(of.config.strategy).scorer(of.config)
    if not isinstance(scorer, UsageContrast) or of.config.temperature is None:
        return None
    chance = seeding.gumbel(records.ids_to_numpy(rivals["doc_id"]), of.seed, "draw", target_lang)
    own = scorer.log_weights(vector[None], of.directions[target_lang])[0]
    return int((rivals["key"].to_numpy() - chance > own + _ROUNDING).sum())


def key_of(doc_id: bytes, vector: NDArray[np.float32], target_lang: str, of: Drawing) -> float | None:
    """Compute the key that a document had in the draw. None where keys come from evidence that is not kept."""
    scorer = strategy_of(of.config.strategy).scorer(of.config)
    ids = np.frombuffer(doc_id, dtype=np.uint8)[None]
    noise = float(seeding.gumbel(ids, of.seed, "draw", target_lang)[0])
    if isinstance(scorer, UsageContrast) and of.config.temperature is not None:
        return noise + float(scorer.log_weights(vector[None], of.directions[target_lang])[0])
    return noise if type(scorer) in (Scorer, UsageContrast) else None
