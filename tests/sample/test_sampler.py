"""The whole order of sampling, over shards in a list in place of tasks on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from compass_ray import records
from compass_ray.artifacts import Artifact, artifact
from compass_ray.centering import LanguageMeans
from compass_ray.errors import EmptyInput, InfeasibleBudget
from compass_ray.sample.candidates import candidates
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.exemplars import ClusterName
from compass_ray.sample.histogram import shard_histogram, shard_spread
from compass_ray.sample.near_duplicates import Sameness, duplicates
from compass_ray.sample.sampler import Outcome, Pass, Sampler
from compass_ray.sample.shard import Shard
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.traits import TRAITS
from compass_ray.vectors import from_column, to_column, unit_rows

DIM, CLUSTERS, SEED, HOLDOUT = 8, 3, 5, 0.3
DISTANCE = 1.0 - np.eye(CLUSTERS)
NOT_NEAR = records.NEAR_USAGE.empty_table()


def shard(folder: Path, number: int, rows: Sequence[tuple[str, str, int]], copies: int = 0) -> Shard:
    """Rows of role, language and cluster, each around the axis of its cluster; the last ``copies`` lie on the first."""
    rng = np.random.default_rng(number)
    ids = records.numpy_to_ids(rng.integers(0, 256, (len(rows), 16), dtype=np.uint8))
    clusters = np.array([cluster for *_, cluster in rows])
    vectors = unit_rows(np.eye(DIM)[clusters] + 0.3 * rng.normal(size=(len(rows), DIM)))
    if copies:
        vectors[-copies:] = vectors[0]
    cosines = [
        vector[:CLUSTERS].tolist() if role == "usage" else None
        for (role, *_), vector in zip(rows, vectors, strict=True)
    ]
    assignments = pa.table(
        {
            "doc_id": ids,
            "content_id": ids,
            "role": [role for role, *_ in rows],
            "target_lang": [None if role == "pool" else "sw" for role, *_ in rows],
            "lang": [lang for _, lang, _ in rows],
            "tokens": pa.array([5] * len(rows), pa.int32()),
            "cluster": pa.array(clusters, pa.int32()),
            "similarity": pa.array([0.5] * len(rows), pa.float32()),
            "outlier": np.zeros(len(rows), dtype=bool),
            "similarities": pa.array(cosines, records.ASSIGNMENT.field("similarities").type),
        },
        schema=records.ASSIGNMENT,
    )
    key = f"{number:05d}"
    embeddings = artifact(str(folder), f"embed{number}", {})
    embeddings.commit([embeddings.write(key, pa.table({"doc_id": ids, "vector": to_column(vectors)}))])
    return Shard(key, assignments, NOT_NEAR, Artifact("nowhere", "none", {}), embeddings, SEED, HOLDOUT)


def corpus(folder: Path, copies: int = 0) -> list[Shard]:
    """Usage asks for clusters 0 and 1; the pool holds all three, more of other languages than of Swahili."""
    pool = [
        ("pool", lang, cluster) for cluster in range(CLUSTERS) for lang in ("sw", "en", "en", "hi") for _ in range(3)
    ]
    others = [("usage", "sw", 0)] * 4 + [("usage", "sw", 1)] * 3 + [("current", "sw", 2)] * 4
    return [shard(folder, number, [*pool, *others, *pool[:copies]], copies) for number in range(4)]


class ListPasses:
    """What tasks do, one shard after another in this process."""

    def __init__(self, shards: Sequence[Shard], config: SampleConfig, sameness: Sameness) -> None:
        self._shards, self._config, self._sameness = shards, config, sameness
        self._scorer = strategy_of(config.strategy).scorer(config)

    def counts(self) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        for one in self._shards:
            yield shard_histogram(one.assignments, NOT_NEAR, ["sw"], CLUSTERS, SEED, HOLDOUT), None

    def soft_counts(self, prior: np.ndarray) -> Iterator[Any]:
        for one in self._shards:
            yield shard_spread(one.assignments, prior, SEED, HOLDOUT)

    def evidence(self, asked: Pass) -> Iterator[dict[str, Any]]:
        for one in self._shards:
            yield {lang: self._scorer.gather(one, q, asked.known[lang]) for lang, q in asked.questions.items()}

    def candidates(self, requests: pa.Table, known: Mapping[str, Any]) -> Iterator[pa.Table]:
        for one in self._shards:
            yield candidates(one, requests, self._scorer, known, self._config.unit)

    def decisions(self, undecided: pa.Table) -> Iterator[pa.Table]:
        vectors: dict[bytes, np.ndarray] = {}
        for one in self._shards:
            table = one.embeddings.read(one.key)
            vectors |= dict(zip(table["doc_id"].to_pylist(), from_column(table["vector"]), strict=True))
        x = unit_rows(np.stack([vectors[document] for document in undecided["doc_id"].to_pylist()]))
        found = duplicates(undecided, x, LanguageMeans({}), self._sameness, self._config.unit)
        yield undecided.select(["target_lang", "position"]).append_column("duplicate_of", found)

    def names(self, wanted: pa.Table | None) -> Mapping[tuple[str, int], ClusterName]:
        return {("sw", 0): ClusterName("maji", "Maji yako wapi?")}


def sampled(shards: Sequence[Shard], sameness: Sameness | None = None, **fields: Any) -> Outcome:
    config, rule = SampleConfig(**{"budget": 30, **fields}), sameness or Sameness(np.inf)
    return Sampler(config, DISTANCE, SEED, sameness=rule).run(ListPasses(shards, config, rule))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    return corpus(tmp_path_factory.mktemp("corpus"))


def test_what_usage_asks_for_is_drawn_in_its_language_first_and_the_outcome_says_it_all(shards: list[Shard]) -> None:
    found = sampled(shards)
    langs = pc.value_counts(found.drawn["lang"]).to_pylist()
    assert {one["values"]: one["counts"] for one in langs} == {"sw": 30}, "of 36 that there are"
    asked = found.drawn.filter(found.drawn["asked_by"].is_valid())
    assert set(asked["cluster"].to_pylist()) == {0, 1}
    assert found.gaps.schema == records.GAP
    assert [row["label"] for row in found.gaps.sort_by("cluster").to_pylist()] == ["maji", "cluster 1", "cluster 2"]
    assert found.certificate["sw"]["selected_documents"] == 30
    assert found.certificate["sw"]["unused_budget"] == 0


@pytest.mark.parametrize("strategy", [name for name, one in TRAITS.items() if not one.needs and name != "dsir"])
def test_neither_the_order_of_shards_nor_a_sampler_that_begins_anew_changes_a_byte(
    shards: list[Shard], strategy: str
) -> None:
    fields: dict[str, Any] = {"strategy": strategy, **({} if TRAITS[strategy].takes_budget else {"budget": None})}
    first, again = sampled(shards, **fields), sampled(shards[::-1], **fields)
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert one == other
    drawn = first.drawn.num_rows
    assert drawn == (30 if TRAITS[strategy].takes_budget else 4 * 36)
    assert len(set(first.drawn["doc_id"].to_pylist())) == drawn


def test_rows_that_say_the_same_are_passed_over_and_others_are_asked_for(tmp_path: Path) -> None:
    repeating = corpus(tmp_path, copies=6)
    plain = sampled(repeating, budget=36)
    distinct = sampled(repeating, Sameness(0.99), budget=36)
    assert plain.drawn.num_rows == 36
    assert plain.suppressed.num_rows == 0
    assert distinct.suppressed.num_rows > 0
    assert not set(distinct.suppressed["doc_id"].to_pylist()) & set(distinct.drawn["doc_id"].to_pylist())
    assert distinct.certificate["sw"]["near_duplicates"] == distinct.suppressed.num_rows


def test_what_cannot_be_done_is_an_error_that_says_why(shards: list[Shard], tmp_path: Path) -> None:
    with pytest.raises(InfeasibleBudget, match=r"target language 'sw' asks for 999 documents but only 144 of the pool"):
        sampled(shards, budget=999, shortfall="refuse")
    alone = shard(tmp_path, 0, [("pool", "sw", 0)] * 5 + [("usage", "sw", 0)])
    outliers = pa.array([False] * 5 + [True])
    marked = alone.assignments.set_column(alone.assignments.column_names.index("outlier"), "outlier", outliers)
    with pytest.raises(EmptyInput, match="no usage document is left outside the held-out part and the outliers"):
        sampled([replace(alone, assignments=marked)])
