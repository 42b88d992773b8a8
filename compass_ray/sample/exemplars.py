"""Documents that stand for a cluster: candidates by shard, texts by shard, names by target language.

Shards are random parts of the corpus, so labels look at the first few of them only; their cost does
not grow with the corpus.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.holdout import heldout_mask
from compass_ray.sample.labels import DOCUMENTS_PER_CLUSTER, class_terms
from compass_ray.text import EXEMPLAR_CHARACTERS, shorten

SHARDS = 64
"""Labels are made from at most this many shards."""

FALLBACK_LANGUAGE = "en"
_MIN_DOCUMENTS = 3

_COLUMNS = ["doc_id", "cluster", "lang", "target_lang", "role", "similarity"]


@dataclass(frozen=True)
class ClusterName:
    """How a cluster is shown to one target language."""

    label: str
    exemplar: str | None


def nearest_documents(assignments: pa.Table, shard: int, seed: int, holdout_fraction: float) -> pa.Table:
    """Find a shard's documents nearest to their centroid. They are found for each cluster, role and language.

    Outliers and held-out rows never enter. At most ``DOCUMENTS_PER_CLUSTER`` a group.
    """
    usable = ~heldout_mask(assignments, seed, holdout_fraction) & ~np.asarray(assignments["outlier"])
    rows = assignments.filter(pa.array(usable)).select(_COLUMNS)
    rows = rows.append_column("shard", pa.array(np.full(rows.num_rows, shard, dtype=np.int32)))
    return keep_nearest([rows])


def keep_nearest(parts: Iterable[pa.Table]) -> pa.Table:
    """Merge tables of nearest documents; the same whatever their order and grouping."""
    rows = pa.concat_tables(parts)
    rows = rows.set_column(0, "doc_id", rows["doc_id"].cast(pa.binary()))
    order = [("cluster", "ascending"), ("role", "ascending"), ("lang", "ascending")]
    rows = rows.sort_by([*order, ("similarity", "descending"), ("doc_id", "ascending")])
    seen: dict[tuple[int, str, str], set[bytes]] = defaultdict(set)
    kept = []
    for cluster, role, lang, doc in zip(
        *(rows[n].to_pylist() for n in ("cluster", "role", "lang", "doc_id")), strict=True
    ):
        group = seen[cluster, role, lang]
        fresh = doc not in group and len(group) < DOCUMENTS_PER_CLUSTER
        kept.append(fresh)
        if fresh:
            group.add(doc)
    rows = rows.filter(pa.array(kept, pa.bool_()))
    return rows.set_column(0, "doc_id", rows["doc_id"].cast(records.ID))


def wanted_documents(nearest: pa.Table, target_langs: Sequence[str]) -> pa.Table:
    """Select nearest documents whose text some target language's label or exemplar may need.

    For each cluster: documents in the target languages, in the fallback language, and the nearest of any.
    """
    shown = pc.is_in(nearest["lang"], value_set=pa.array([*target_langs, FALLBACK_LANGUAGE]))
    any_language = keep_nearest([nearest.set_column(2, "lang", pa.array([""] * nearest.num_rows, pa.string()))])
    wanted = pc.or_(shown, pc.is_in(nearest["doc_id"], value_set=any_language["doc_id"].combine_chunks()))
    return nearest.filter(wanted)


def name_clusters(
    documents: pa.Table, target_langs: Sequence[str], n_clusters: int
) -> dict[tuple[str, int], ClusterName]:
    """Find the label and exemplar of each cluster for each target language.

    Terms come from documents in the target language; in clusters with few of them from the fallback language, if that
    has more; without either, from whatever language the cluster has most of. The exemplar is the target language's
    usage nearest to the centroid, else the nearest document.

    Parameters
    ----------
    documents : Table
        Of :func:`wanted_documents`, with ``text``.
    """
    texts: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    best: dict[tuple[str, int], tuple[tuple[bool, bool, float], str]] = {}
    names = ("cluster", "lang", "target_lang", "role", "similarity", "text")
    for cluster, lang, of, role, similarity, text in zip(*(documents[n].to_pylist() for n in names), strict=True):
        texts[lang][cluster].append(text)
        for target_lang in target_langs:
            rank = (role == "usage" and of == target_lang, lang == target_lang, similarity)
            if (target_lang, cluster) not in best or rank > best[target_lang, cluster][0]:
                best[target_lang, cluster] = (rank, text)
    terms = {lang: class_terms(members, lang) for lang, members in texts.items()}
    result = {}
    for target_lang, cluster in product(target_langs, range(n_clusters)):
        found = (terms[lang].get(cluster, []) for lang in _languages_for(cluster, target_lang, texts))
        label = " · ".join(next(filter(None, found), []))
        exemplar = best.get((target_lang, cluster))
        shown = None if exemplar is None else shorten(exemplar[1], EXEMPLAR_CHARACTERS)
        result[target_lang, cluster] = ClusterName(label or f"cluster {cluster}", shown)
    return result


def _languages_for(cluster: int, target_lang: str, texts: dict[str, dict[int, list[str]]]) -> list[str]:
    """List the languages whose terms may name a cluster, best first."""
    sizes = {lang: len(members[cluster]) for lang, members in texts.items() if cluster in members}
    known = [lang for lang in (target_lang, FALLBACK_LANGUAGE) if lang in sizes]
    enough = [lang for lang in known if sizes[lang] >= _MIN_DOCUMENTS]
    return [*enough, *known, *sorted(sizes, key=lambda lang: (-sizes[lang], lang))]


def with_names(gaps: pa.Table, names: Mapping[tuple[str, int], ClusterName]) -> pa.Table:
    """Fill in labels and exemplars; a cluster without a name is called by its number."""
    cells = list(zip(gaps["target_lang"].to_pylist(), gaps["cluster"].to_pylist(), strict=True))
    labels = [names[cell].label if cell in names else f"cluster {cell[1]}" for cell in cells]
    examples = [names[cell].exemplar if cell in names else None for cell in cells]
    position = {name: gaps.schema.get_field_index(name) for name in ("label", "exemplar")}
    gaps = gaps.set_column(position["label"], "label", pa.array(labels, pa.string()))
    return gaps.set_column(position["exemplar"], "exemplar", pa.array(examples, pa.string())).cast(records.GAP)
