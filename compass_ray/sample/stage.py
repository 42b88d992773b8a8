"""Sample: assignments -> gaps, certificate and selection.

One actor does it (:meth:`compass_ray.sample.sampler.Sampler.run`), and sends tasks over the shards, which answer to
it: counts, then usage shared among clusters by them; what the strategy wants to know, if anything; candidates; the
vectors of candidates, to pass over near-duplicates; texts that name clusters. The driver gets the outcome. Then tasks
fetch the chosen rows out of the document shards. Cost: assignments are read three times and, where
documents are drawn towards usage, five times, vectors three times then; vectors of the pool once more where languages
are compared, and those of candidates where near-duplicates are passed over; documents in shards that name clusters or
hold chosen rows. The actor holds counts and a few times ``budget`` keys per target language.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.centering import LanguageMeans, Sums, language_means, language_sums
from compass_ray.configbase import identity
from compass_ray.errors import FingerprintMismatch
from compass_ray.runtime.stage import Session, map_keys, shuffle
from compass_ray.runtime.threads import set_threads
from compass_ray.sample import exemplars, uriel
from compass_ray.sample.candidates import candidates
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import Unit
from compass_ray.sample.eligibility import find_near_usage
from compass_ray.sample.histogram import shard_histogram, shard_spread
from compass_ray.sample.history import History
from compass_ray.sample.near_duplicates import Sameness, duplicates
from compass_ray.sample.reasons import reason
from compass_ray.sample.sampler import Outcome, Pass, Sampler, SoftCounts
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.shard import Shard
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.usage_contrast import from_table
from compass_ray.sample.verdict import Drawing
from compass_ray.shards import shard_key
from compass_ray.vectors import finite_rows, from_column, unit_rows

VERSION = 12
GAPS, HISTOGRAMS, DRAW, SUPPRESSED, DIRECTIONS = "gaps", "histograms", "draw", "suppressed", "directions"
TRAINED = "trained"

_RESTARTS = 2
"""Of the sampler actor, which then begins anew: tasks answer the same again."""

_COLUMNS = [name for name in records.ASSIGNMENT.names if name != "similarities"]  # which one pass alone needs


@dataclass(frozen=True)
class SampleInputs:
    """What the stage reads; small, and the same for all tasks."""

    documents: Artifact
    embeddings: Artifact
    assignments: Artifact
    target_langs: tuple[str, ...]
    distance: NDArray[np.float64]  # (n_clusters, n_clusters), between centroids
    seed: int
    holdout_fraction: float
    copy_similarity: float | None  # cosine above which texts of two languages say the same, where it was fitted
    history: History | None = None  # of adapters that are updated

    @property
    def n_clusters(self) -> int:
        """Clusters of the codebook."""
        return len(self.distance)

    @property
    def trained(self) -> dict[str, pa.Array]:
        """Contents that adapters were trained on before, or are never to be, by target language."""
        history = self.history
        return {} if history is None else {lang: history.contents(lang) for lang in history.trained}


def sample(inputs: SampleInputs, config: SampleConfig, session: Session) -> Artifact:
    """Decide what is selected: gaps, histograms, the drawn ids, and the certificate in the summary.

    Raises
    ------
    InfeasibleBudget, EmptyInput
    """
    near_usage = find_near_usage(inputs.documents, inputs.embeddings, inputs.target_langs, config, session)
    body = {
        "version": VERSION,
        "assignments": inputs.assignments.fingerprint,
        "documents": inputs.documents.fingerprint,
        "near_usage": near_usage.fingerprint,
        "holdout_fraction": inputs.holdout_fraction,
        "config": identity(config),
        "seed": inputs.seed,
        "copy_similarity": inputs.copy_similarity,
    }
    if config.language_features is not None:
        body["language_features"] = uriel.fingerprint(config.language_features)
    keys = [DRAW, SUPPRESSED, DIRECTIONS, GAPS, HISTOGRAMS]
    if inputs.history is not None:
        body["history"] = inputs.history.fingerprint()
        keys.append(TRAINED)
    out = artifact(session.output, "sample", body)
    session.complete(out, keys, lambda missing: _sample(inputs, near_usage, config, out))
    return out


def select(inputs: SampleInputs, config: SampleConfig, sampled: Artifact, session: Session) -> Artifact:
    """Fetch the drawn documents and say why each was drawn; one key per shard that holds any."""
    drawn = sampled.read(DRAW)
    keys = _keys_of(drawn)
    body = {"version": VERSION, "sample": sampled.fingerprint, "documents": inputs.documents.fingerprint}
    out = artifact(session.output, "select", body)
    session.complete(
        out,
        keys,
        lambda missing: map_keys(_select_shard, missing, inputs.documents, drawn, sampled.read(GAPS), config, out),
    )
    return out


def certificate(sampled: Artifact) -> dict[str, Any]:
    """Read the certificate by target language."""
    body: dict[str, Any] = sampled.manifest().receipts[GAPS].summary["certificate"]
    return body


def drawing_of(sampled: Artifact, seed: int) -> Drawing:
    """Read what a finished sample artifact says of its draw.

    Raises
    ------
    FingerprintMismatch
        If another version of this stage has made it.
    """
    made_by = sampled.identity["version"]
    if made_by != VERSION:
        raise FingerprintMismatch(
            f"{sampled.url}: drawn by version {made_by} of the sample stage, which version {VERSION} cannot explain; "
            "run the same config again under another name"
        )
    config = SampleConfig.model_validate(sampled.identity["config"])
    drawn, suppressed, gaps, directions = (sampled.read(name) for name in (DRAW, SUPPRESSED, GAPS, DIRECTIONS))
    trained = sampled.read(TRAINED) if TRAINED in sampled.manifest().receipts else None
    return Drawing(drawn, suppressed, gaps, from_table(directions), config, seed, trained)


def _trained_table(history: History) -> pa.Table:
    """List what is not drawn again: the target language, null for all, and the content."""
    parts = [(lang, rows["content_id"].combine_chunks()) for lang, rows in sorted(history.trained.items())]
    langs = [lang for lang, ids in [*parts, (None, history.unseen)] for _ in range(len(ids))]
    contents = pa.chunked_array([*(ids for _, ids in parts), history.unseen], records.ID)
    return pa.table({"target_lang": pa.array(langs, pa.string()), "content_id": contents})


def _keys_of(rows: pa.Table) -> list[str]:
    return [shard_key(shard) for shard in sorted(pc.unique(rows["shard"]).to_pylist())]


def _sample(inputs: SampleInputs, near_usage: Artifact, config: SampleConfig, out: Artifact) -> Iterator[Receipt]:
    import ray

    passes = RayPasses(inputs, near_usage, config)
    actor = ray.remote(num_cpus=0, max_restarts=_RESTARTS, max_task_retries=_RESTARTS)(Sampler)
    sampler = actor.remote(config, inputs.distance, inputs.seed, sameness=passes.sameness, history=inputs.history)
    outcome: Outcome = ray.get(sampler.run.remote(passes))
    yield out.write(DRAW, outcome.drawn)
    yield out.write(SUPPRESSED, outcome.suppressed)
    yield out.write(DIRECTIONS, outcome.directions)
    yield out.write(HISTOGRAMS, outcome.histogram)
    yield out.write(GAPS, outcome.gaps, {"certificate": outcome.certificate})
    if inputs.history is not None:
        yield out.write(TRAINED, _trained_table(inputs.history))


class RayPasses:
    """Passes over all shards as Ray tasks: they answer to the process that asks, which is the sampler's."""

    def __init__(self, inputs: SampleInputs, near_usage: Artifact, config: SampleConfig) -> None:
        self._inputs, self._near_usage, self._config = inputs, near_usage, config
        self.sameness = sameness_of(config, inputs.copy_similarity)

    def counts(self) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        return self._map(_count_shard, self._inputs, self._near_usage)

    def soft_counts(self, prior: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], SoftCounts]]:
        return self._map(_soft_counts_of_shard, self._inputs, prior)

    def evidence(self, asked: Pass) -> Iterator[dict[str, Any]]:
        return self._map(_gather, self._inputs, self._near_usage, self._scorer, asked)

    def candidates(self, requests: pa.Table, known: Mapping[str, Any]) -> Iterator[pa.Table]:
        shared = (self._inputs, self._near_usage, self._config, self._scorer, requests, known)
        return self._map(_candidates_of_shard, *shared)

    def decisions(self, undecided: pa.Table) -> Iterator[pa.Table]:
        from compass_ray.runtime.cluster import cluster_cpus, ray_errors

        inputs, across = self._inputs, self.sameness.across
        parts = len(inputs.target_langs) if across else min(2 * cluster_cpus(), inputs.n_clusters)
        undecided = undecided.append_column("part", _parts(undecided, self.sameness, parts))
        shared = (inputs.embeddings, undecided, self._means, self.sameness, self._config.unit)
        with ray_errors():
            yield from shuffle(_vectors_of_shard, _keys_of(undecided), _decide, parts, *shared)

    def names(self, wanted: pa.Table | None) -> Mapping[tuple[str, int], exemplars.ClusterName]:
        if wanted is None:
            return {}
        texts = pa.concat_tables(self._map(_texts_of_shard, self._inputs.documents, wanted, keys=_keys_of(wanted)))
        order = ("cluster", "ascending"), ("lang", "ascending"), ("similarity", "descending"), ("doc_id", "ascending")
        return exemplars.name_clusters(texts.sort_by([*order]), self._inputs.target_langs, self._inputs.n_clusters)

    @property
    def _scorer(self) -> Scorer:
        return strategy_of(self._config.strategy).scorer(self._config)

    @cached_property
    def _keys(self) -> list[str]:
        return list(self._inputs.assignments.manifest().receipts)

    @cached_property
    def _means(self) -> LanguageMeans:
        return language_means(self._map(_language_sums, self._inputs)) if self.sameness.across else LanguageMeans({})

    def _map(self, function: Callable[..., Any], *shared: Any, keys: list[str] | None = None) -> Iterator[Any]:
        from compass_ray.runtime.cluster import ray_errors

        with ray_errors():  # here too: what Ray says of a lost task is lost on the way from one process to the next
            yield from map_keys(function, self._keys if keys is None else keys, *shared)


def _count_shard(key: str, inputs: SampleInputs, near_usage: Artifact) -> tuple[pa.Table, pa.Table | None]:
    assignments = inputs.assignments.read(key, _COLUMNS)
    histogram = shard_histogram(
        assignments,
        near_usage.read(key),
        inputs.target_langs,
        inputs.n_clusters,
        inputs.seed,
        inputs.holdout_fraction,
        inputs.trained,
    )
    if int(key) >= exemplars.SHARDS:
        return histogram, None
    return histogram, exemplars.nearest_documents(assignments, int(key), inputs.seed, inputs.holdout_fraction)


def _soft_counts_of_shard(
    key: str, inputs: SampleInputs, common: NDArray[np.float64]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    columns = ["content_id", "role", "target_lang", "cluster", "outlier", "similarities"]
    assignments = inputs.assignments.read(key, columns)
    return shard_spread(assignments, common, inputs.seed, inputs.holdout_fraction)


def sameness_of(config: SampleConfig, fitted: float | None) -> Sameness:
    """Tell when documents say the same under a config. The strategy ``all`` draws what there is."""
    if not config.traits.takes_budget:
        return Sameness(np.inf)
    near = np.inf if config.near_duplicates == "off" else config.near_duplicate_similarity
    copy = config.copy_similarity or fitted
    if config.max_copies == "off" or copy is None:
        return Sameness(near)
    return Sameness(near, copy, config.max_copies)


def _language_sums(key: str, inputs: SampleInputs) -> Sums:
    """Sum the pool's vectors by language."""
    set_threads(1)
    table = inputs.embeddings.read(key, ["role", "lang", "vector"])
    return language_sums(finite_rows(table.filter(pc.equal(table["role"], "pool"))))


def _shard(key: str, inputs: SampleInputs, near_usage: Artifact) -> Shard:
    return Shard(
        key,
        inputs.assignments.read(key, _COLUMNS),
        near_usage.read(key),
        inputs.documents,
        inputs.embeddings,
        inputs.seed,
        inputs.holdout_fraction,
        inputs.trained,
    )


def _gather(key: str, inputs: SampleInputs, near_usage: Artifact, scorer: Scorer, asked: Pass) -> dict[str, Any]:
    set_threads(1)
    shard = _shard(key, inputs, near_usage)
    return {
        target_lang: scorer.gather(shard, question, asked.known[target_lang])
        for target_lang, question in asked.questions.items()
    }


def _candidates_of_shard(
    key: str,
    inputs: SampleInputs,
    near_usage: Artifact,
    config: SampleConfig,
    scorer: Scorer,
    requests: pa.Table,
    known: Mapping[str, Any],
) -> pa.Table:
    set_threads(1)
    return candidates(_shard(key, inputs, near_usage), requests, scorer, known, config.unit)


def _parts(undecided: pa.Table, sameness: Sameness, parts: int) -> pa.Array:
    """Choose the task that compares each candidate. Those that are compared with each other share one."""
    if sameness.across:
        codes = undecided["target_lang"].combine_chunks().dictionary_encode().indices.to_numpy()
    else:
        codes = undecided["cluster"].to_numpy()
    return pa.array(codes % parts, pa.int32())


def _vectors_of_shard(
    key: str,
    parts: int,
    embeddings: Artifact,
    undecided: pa.Table,
    means: LanguageMeans,
    sameness: Sameness,
    unit: Unit,
) -> list[pa.Table]:
    """Read the vectors of a shard's candidates, by the part that compares them."""
    mine = undecided.filter(pc.equal(undecided["shard"], int(key))).select(
        ["target_lang", "position", "part", "doc_id"]
    )
    table = embeddings.read(key, ["doc_id", "vector"])
    place = pc.index_in(mine["doc_id"].combine_chunks(), value_set=table["doc_id"].combine_chunks())
    rows = mine.append_column("vector", table["vector"].take(place)).drop_columns(["doc_id"])
    part = rows["part"].to_numpy()
    return [rows.filter(pa.array(part == number)).drop_columns(["part"]) for number in range(parts)]


def _decide(
    part: int,
    parts: int,
    pieces: list[pa.Table],
    embeddings: Artifact,
    undecided: pa.Table,
    means: LanguageMeans,
    sameness: Sameness,
    unit: Unit,
) -> pa.Table:
    """Find which candidates of one part say again what a better one says.
    Columns are target language, position and duplicate_of.
    """
    set_threads(1)
    rows = undecided.filter(pa.array(undecided["part"].to_numpy() == part))
    order = [("target_lang", "ascending"), ("position", "ascending")]
    rows, vectors = rows.sort_by(order), pa.concat_tables(pieces).sort_by(order)
    if not rows.num_rows:
        return rows.select(["target_lang", "position"]).append_column("duplicate_of", pa.nulls(0, records.ID))
    found = duplicates(rows, unit_rows(from_column(vectors["vector"])), means, sameness, unit)
    return rows.select(["target_lang", "position"]).append_column("duplicate_of", found)


def _texts_of_shard(key: str, documents: Artifact, wanted: pa.Table) -> pa.Table:
    mine = wanted.filter(pc.equal(wanted["shard"], int(key)))
    texts = records.documents_only(documents.read(key, ["doc_id", "text", "reject"]))
    position = pc.index_in(mine["doc_id"], value_set=texts["doc_id"].combine_chunks())
    named = mine.append_column("text", texts["text"].take(position))
    return named.set_column(0, "doc_id", named["doc_id"].cast(pa.binary()))


def _select_shard(
    key: str, documents: Artifact, drawn: pa.Table, gaps: pa.Table, config: SampleConfig, out: Artifact
) -> Receipt:
    mine = drawn.filter(pc.equal(drawn["shard"], int(key)))
    rows = records.documents_only(documents.read(key))
    chosen = rows.take(pc.index_in(mine["doc_id"], value_set=rows["doc_id"].combine_chunks()))
    gap_of = {(gap["target_lang"], gap["cluster"]): gap for gap in gaps.to_pylist()}
    target_langs = mine["target_lang"].to_pylist()
    cells = [gap_of[cell] for cell in zip(target_langs, mine["cluster"].to_pylist(), strict=True)]
    asking = [gap_of.get(cell) for cell in zip(target_langs, mine["asked_by"].to_pylist(), strict=True)]
    texts = [reason(*row, config) for row in zip(cells, asking, mine["rank"].to_pylist(), strict=True)]
    added: dict[str, Any] = {
        "selected_for": mine["target_lang"],
        "cluster": mine["cluster"],
        "asked_by": mine["asked_by"],
        "similarity": mine["similarity"],
        "deficit": pa.array([gap["deficit"] for gap in cells], pa.float64()),
        "quota": pa.array([gap["quota"] for gap in cells], pa.int64()),
        "rank": mine["rank"],
        "reason": pa.array(texts, pa.string()),
    }
    for name, column in added.items():
        chosen = chosen.append_column(name, column)
    return out.write(key, chosen.cast(records.SELECTION))
