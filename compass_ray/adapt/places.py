"""Where in the codebook lie the documents that adapters are trained on, and those that they are never to see.

An update counts by cluster what its champion was trained on, and the gate weighs former usage by it. Cost:
keys of all assignment shards are read once; the driver holds the ids of what was trained on.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.adapt.data import DOCUMENTS, HELDOUT, TRAIN, key_of
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.runtime.stage import Session, map_keys

VERSION = 2


def place(
    assignments: Artifact,
    n_clusters: int,
    tokens: Artifact,
    languages: Sequence[str],
    usage: Artifact | None,
    near_usage: Artifact,
    session: Session,
) -> Artifact:
    """Find the clusters of training documents and of what nothing trains on; schema PLACE, a key for each shard.

    Parameters
    ----------
    assignments : Artifact
        Of the run that the documents are from.
    n_clusters : int
        Of its codebook.
    tokens : Artifact
        Of :func:`compass_ray.adapt.data.tokenize`, for these languages at least.
    usage : Artifact, optional
        Of :func:`compass_ray.adapt.usage.heldout_usage`.
    near_usage : Artifact
        Of the sample stage: pool documents that nearly repeat usage.
    """
    body = {
        "version": VERSION,
        "assignments": assignments.fingerprint,
        "tokens": tokens.fingerprint,
        "languages": sorted(languages),
        "usage": None if usage is None else usage.fingerprint,
        "near_usage": near_usage.fingerprint,
    }
    target = artifact(session.output, "place", body)
    known = pa.concat_tables([_known(tokens, lang) for lang in sorted(languages)])
    session.complete(
        target,
        list(assignments.manifest().receipts),
        lambda missing: map_keys(_place_shard, missing, assignments, n_clusters, known, usage, near_usage, target),
    )
    return target


def all_places(places: Artifact) -> pa.Table:
    """Read the places of all target languages, by id; schema ``records.PLACE``."""
    rows = pa.concat_tables([records.PLACE.empty_table(), *places.read_all(places.manifest().keys_with_rows)])
    return rows.take(pc.sort_indices(rows["doc_id"].cast(pa.binary())))


def placed(places: pa.Table, target_lang: str, part: str) -> pa.Table:
    """Pick one target language's places of a part."""
    return places.filter(pc.and_(pc.equal(places["target_lang"], target_lang), pc.equal(places["part"], part)))


def unseen(places: pa.Table) -> pa.Array:
    """List the contents that no target language's adapter is trained on, sorted."""
    return records.unique_ids(places["content_id"].filter(pc.not_equal(places["part"], TRAIN)).chunks)


def _known(tokens: Artifact, lang: str) -> pa.Table:
    documents = tokens.read(key_of(lang, DOCUMENTS), ["doc_id", "part", "selected"])
    parts = []
    for part, selected in itertools.product((TRAIN, HELDOUT), (True, False)):
        mine = pc.and_(pc.equal(documents["part"], part), pc.equal(documents["selected"], selected))
        parts.append(_of(lang, part, pc.unique(documents["doc_id"].filter(mine)), selected))
    return pa.concat_tables(parts)


def _of(lang: str, part: str, ids: pa.Array, selected: bool) -> pa.Table:
    columns = {
        "target_lang": [lang] * len(ids),
        "part": [part] * len(ids),
        "doc_id": ids,
        "selected": [selected] * len(ids),
    }
    return pa.table(columns, schema=_WANTED)


_WANTED = pa.schema([records.PLACE.field(name) for name in ("target_lang", "part", "doc_id", "selected")])


def _place_shard(
    key: str,
    assignments: Artifact,
    n_clusters: int,
    known: pa.Table,
    usage: Artifact | None,
    near_usage: Artifact,
    target: Artifact,
) -> Receipt:
    wanted = [known]
    for part, source in (("usage", usage), ("near_usage", near_usage)):
        if source is not None and key in source.manifest().receipts:
            rows = source.read(key, ["target_lang", "doc_id"])
            wanted += [
                _of(lang, part, pc.unique(rows.filter(pc.equal(rows["target_lang"], lang))["doc_id"]), False)
                for lang in pc.unique(rows["target_lang"]).to_pylist()
            ]
    return target.write(key, _found(pa.concat_tables(wanted), assignments, key, n_clusters))


def _found(wanted: pa.Table, assignments: Artifact, key: str, n_clusters: int) -> pa.Table:
    rows = assignments.read(key, ["doc_id", "content_id", "lang", "tokens", "cluster", "outlier"])
    position = pc.index_in(wanted["doc_id"].combine_chunks(), value_set=rows["doc_id"].combine_chunks())
    here = position.is_valid()
    mine, rows = wanted.filter(here), rows.take(position.filter(here))
    columns = {name: mine[name] for name in _WANTED.names}
    columns |= {name: rows[name] for name in ("content_id", "lang", "tokens")}
    columns["cluster"] = pc.if_else(rows["outlier"], pa.scalar(n_clusters, pa.int32()), rows["cluster"])
    return pa.table(columns).select(records.PLACE.names).cast(records.PLACE)
