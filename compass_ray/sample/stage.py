"""Sample: assignments -> gaps, certificate and selection.

Three passes of tasks over shards: counts to the sampler actor, candidates to the sampler actor, and, once it
has drawn, the chosen rows out of the document shards. Cost: assignments are read twice, documents once and
only in shards that hold chosen rows; the driver sees counts and at most ``budget`` keys per owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.configbase import identity
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.sample import exemplars
from compass_ray.sample.config import SampleConfig, TargetConfig
from compass_ray.sample.draw import candidates
from compass_ray.sample.histogram import shard_histogram
from compass_ray.sample.sampler import Allocation, Sampler

VERSION = 2
GAPS, HISTOGRAMS, DRAW = "gaps", "histograms", "draw"


@dataclass(frozen=True)
class SampleInputs:
    """What the stage reads; small, and the same for all tasks."""

    documents: Artifact
    assignments: Artifact
    owners: tuple[str, ...]
    n_clusters: int
    seed: int
    holdout_fraction: float
    with_current: bool = True  # whether current data will be trained on beside the selection


def sample(inputs: SampleInputs, target: TargetConfig, config: SampleConfig, session: Session) -> Artifact:
    """Decide what is selected: gaps, histograms, the drawn ids, and the certificate in the summary.

    Raises
    ------
    InfeasibleBudget, EmptyInput
    """
    body = {
        "version": VERSION,
        "assignments": inputs.assignments.fingerprint,
        "documents": inputs.documents.fingerprint,
        "target": identity(target),
        "config": identity(config),
        "seed": inputs.seed,
    }
    if not inputs.with_current:
        body["with_current"] = False
    out = artifact(session.output, "sample", body)
    session.complete(out, [DRAW, GAPS, HISTOGRAMS], lambda missing: _sample(inputs, config, out))
    return out


def select(inputs: SampleInputs, sampled: Artifact, session: Session) -> Artifact:
    """Fetch the drawn documents and say why each was drawn; one key per shard that holds any."""
    drawn = sampled.read(DRAW)
    keys = _keys_of(drawn)
    body = {"version": VERSION, "sample": sampled.fingerprint, "documents": inputs.documents.fingerprint}
    out = artifact(session.output, "select", body)
    session.complete(
        out, keys, lambda missing: map_keys(_select_shard, missing, inputs.documents, drawn, sampled.read(GAPS), out)
    )
    return out


def certificate(sampled: Artifact) -> dict[str, Any]:
    """The certificate by owner."""
    body: dict[str, Any] = sampled.manifest().receipts[GAPS].summary["certificate"]
    return body


def _keys_of(rows: pa.Table) -> list[str]:
    from compass_ray.shards import shard_key

    return [shard_key(shard) for shard in sorted(set(rows["shard"].to_pylist()))]


def _sample(inputs: SampleInputs, config: SampleConfig, out: Artifact) -> Iterator[Receipt]:
    import ray

    remote = ray.remote(num_cpus=0)(Sampler)
    sampler = remote.remote(config, inputs.n_clusters, inputs.seed, with_current=inputs.with_current)
    keys = list(inputs.assignments.manifest().receipts)
    merged = [
        sampler.add_counts.remote(histogram, nearest) for histogram, nearest in map_keys(_count_shard, keys, inputs)
    ]
    ray.get(merged)
    allocation: Allocation = ray.get(sampler.allocate.remote())
    merged = [
        sampler.add_candidates.remote(found)
        for found in map_keys(_candidates_of_shard, keys, inputs, allocation.quotas)
    ]
    ray.get(merged)
    drawn = ray.get(sampler.draw.remote())
    gaps = _with_names(allocation.gaps, _named(inputs, ray.get(sampler.label_documents.remote())))
    yield out.write(DRAW, drawn)
    yield out.write(HISTOGRAMS, allocation.histogram)
    yield out.write(GAPS, gaps, {"certificate": allocation.certificate})


def _count_shard(key: str, inputs: SampleInputs) -> tuple[pa.Table, pa.Table | None]:
    assignments = inputs.assignments.read(key)
    histogram = shard_histogram(assignments, inputs.owners, inputs.n_clusters, inputs.seed, inputs.holdout_fraction)
    if int(key) >= exemplars.SHARDS:
        return histogram, None
    return histogram, exemplars.nearest_documents(assignments, int(key), inputs.seed, inputs.holdout_fraction)


def _candidates_of_shard(key: str, inputs: SampleInputs, quotas: pa.Table) -> pa.Table:
    return candidates(inputs.assignments.read(key), int(key), quotas, inputs.seed)


def _named(inputs: SampleInputs, wanted: pa.Table | None) -> dict[tuple[str, int], exemplars.ClusterName]:
    if wanted is None:
        return {}
    parts = list(map_keys(_texts_of_shard, _keys_of(wanted), inputs.documents, wanted))
    documents = pa.concat_tables(parts).sort_by(
        [("cluster", "ascending"), ("lang", "ascending"), ("similarity", "descending"), ("doc_id", "ascending")]
    )
    return {
        (owner, cluster): name
        for owner in inputs.owners
        for cluster, name in exemplars.name_clusters(documents, owner, inputs.n_clusters).items()
    }


def _texts_of_shard(key: str, documents: Artifact, wanted: pa.Table) -> pa.Table:
    mine = wanted.filter(pc.equal(wanted["shard"], int(key)))
    texts = records.documents_only(documents.read(key, ["doc_id", "text", "reject"]))
    position = pc.index_in(mine["doc_id"], value_set=texts["doc_id"].combine_chunks())
    named = mine.append_column("text", texts["text"].take(position))
    return named.set_column(0, "doc_id", named["doc_id"].cast(pa.binary()))


def _with_names(gaps: pa.Table, names: Mapping[tuple[str, int], exemplars.ClusterName]) -> pa.Table:
    cells = list(zip(gaps["owner"].to_pylist(), gaps["cluster"].to_pylist(), strict=True))
    labels = [names[cell].label if cell in names else f"cluster {cell[1]}" for cell in cells]
    examples = [names[cell].exemplar if cell in names else None for cell in cells]
    position = {name: gaps.schema.get_field_index(name) for name in ("label", "exemplar")}
    gaps = gaps.set_column(position["label"], "label", pa.array(labels, pa.string()))
    return gaps.set_column(position["exemplar"], "exemplar", pa.array(examples, pa.string())).cast(records.GAP)


def _select_shard(key: str, documents: Artifact, drawn: pa.Table, gaps: pa.Table, out: Artifact) -> Receipt:
    mine = drawn.filter(pc.equal(drawn["shard"], int(key)))
    rows = records.documents_only(documents.read(key))
    chosen = rows.take(pc.index_in(mine["doc_id"], value_set=rows["doc_id"].combine_chunks()))
    gap_of = {(gap["owner"], gap["cluster"]): gap for gap in gaps.to_pylist()}
    cells = [gap_of[cell] for cell in zip(mine["owner"].to_pylist(), mine["cluster"].to_pylist(), strict=True)]
    reasons = [_reason(gap, rank) for gap, rank in zip(cells, mine["rank"].to_pylist(), strict=True)]
    added: dict[str, Any] = {
        "selected_for": mine["owner"],
        "cluster": mine["cluster"],
        "similarity": mine["similarity"],
        "deficit": pa.array([gap["deficit"] for gap in cells], pa.float64()),
        "quota": pa.array([gap["quota"] for gap in cells], pa.int64()),
        "rank": mine["rank"],
        "reason": pa.array(reasons, pa.string()),
    }
    for name, column in added.items():
        chosen = chosen.append_column(name, column)
    return out.write(key, chosen.cast(records.SELECTION))


def _reason(gap: Mapping[str, Any], rank: int) -> str:
    current = "no current data" if gap["p_current"] is None else f"{gap['p_current']:.1%} of current"
    usage = f"{gap['p_target']:.1%} of usage"
    return f"cluster “{gap['label']}”: {usage}, {current}; rank {rank} of quota {gap['quota']}"
