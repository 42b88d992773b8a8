"""Which documents of a cell are likelier to be drawn: those that lie more towards usage than the pool does."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import records
from compass_ray.artifacts import Artifact, artifact
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import owner_mass
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.scorer import Question, Scorer, noise
from compass_ray.sample.shard import Shard
from compass_ray.sample.strategies import STRATEGIES
from compass_ray.sample.usage_contrast import Direction, UsageContrast, from_table, to_table
from compass_ray.vectors import to_column, unit_rows

DIM, OWNER = 8, "sw"
NOBODY = OwnerProblem(
    owner=OWNER,
    languages=("en",),
    target=np.array([1, 0]),
    heldout=np.zeros(2, dtype=np.int64),
    current=np.zeros(2, dtype=np.int64),
    capacity=np.array([[1]]),
    other_targets=np.zeros(1, dtype=np.int64),
    spread=np.ones(1),
    current_tokens=np.zeros(2, dtype=np.int64),
    capacity_tokens=np.array([[1]]),
    usage_tokens=np.ones(1, dtype=np.int64),
)
QUESTION = Question(NOBODY, owner_mass(NOBODY), 1)


def shard(folder: Path, number: int, roles: list[str], vectors: np.ndarray) -> Shard:
    """One cluster, one language: a single cell."""
    count = len(roles)
    ids = records.numpy_to_ids(np.random.default_rng(number).integers(0, 256, (count, 16), dtype=np.uint8))
    assignments = pa.table(
        {
            "doc_id": ids,
            "content_id": ids,
            "role": roles,
            "owner": [None if role == "pool" else OWNER for role in roles],
            "lang": ["en"] * count,
            "tokens": pa.array([5] * count, pa.int32()),
            "cluster": pa.array([0] * count, pa.int32()),
            "similarity": pa.array([0.5] * count, pa.float32()),
            "outlier": [False] * count,
            "similarities": pa.nulls(count, records.ASSIGNMENT.field("similarities").type),
        },
        schema=records.ASSIGNMENT,
    )
    key = f"{number:05d}"
    embeddings = artifact(str(folder), f"embed{number}", {})
    shuffled = np.random.default_rng(0).permutation(count)  # what is embedded need not be in the order of assignments
    rows = pa.table({"doc_id": ids, "vector": to_column(vectors)}).take(pa.array(shuffled))
    embeddings.commit([embeddings.write(key, rows)])
    return Shard(key, assignments, Artifact("nowhere", "none", {}), embeddings, 0, 0.0)


def cell(folder: Path, shards: int = 3, pool: int = 200, usage: int = 5, current: int = 0) -> list[Shard]:
    """Half of the pool is about what usage is about (the first axis), half, and current data, about the second."""
    found = []
    for number in range(shards):
        rng = np.random.default_rng(number)
        asked = np.r_[np.arange(pool) % 2 == 0, np.ones(usage, dtype=bool), np.zeros(current, dtype=bool)]
        centers = np.where(asked[:, None], np.eye(DIM)[0], np.eye(DIM)[1])
        vectors = unit_rows(centers + 0.5 * rng.normal(size=centers.shape))
        found.append(shard(folder, number, ["pool"] * pool + ["target"] * usage + ["current"] * current, vectors))
    return found


def learnt(shards: list[Shard], scorer: UsageContrast) -> Direction:
    """What the passes over the shards find out."""
    known = None
    passes = 0
    while scorer.missing(QUESTION, known):
        parts = [scorer.gather(one, QUESTION, known) for one in shards]
        assert (reduce(scorer.merge, parts) == reduce(scorer.merge, parts[::-1])).all()
        known = scorer.conclude(QUESTION, known, reduce(scorer.merge, parts))
        passes += 1
    assert passes == 2
    assert known is not None
    return known


@pytest.mark.parametrize("current", [0, 20])
def test_the_direction_is_from_pool_and_current_data_to_usage_and_the_pool_has_a_deviation_of_one_along_it(
    tmp_path: Path, current: int
) -> None:
    shards = cell(tmp_path, current=current)
    known = learnt(shards, UsageContrast(0.5))
    pool = np.concatenate([one.vectors(one.inside_pool()) for one in shards])
    usage = np.concatenate([one.vectors(one.usage(OWNER)) for one in shards])
    assert known.products(pool).std() == pytest.approx(1, abs=1e-4)
    others = [pool, np.concatenate([one.vectors(one.current(OWNER)) for one in shards])]
    middle = np.mean([rows.mean(axis=0) for rows in others if len(rows)], axis=0)
    difference = (usage.mean(axis=0) - middle).astype(np.float64)
    cosine = known.vector @ difference / np.linalg.norm(known.vector) / np.linalg.norm(difference)
    assert cosine == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("temperature", "low", "high"), [(100.0, 0.4, 0.6), (0.5, 0.9, 1.0)])
def test_of_a_cell_the_documents_that_usage_asks_for_are_drawn_the_more_the_lower_the_temperature(
    tmp_path: Path, temperature: float, low: float, high: float
) -> None:
    shards = cell(tmp_path)
    scorer = UsageContrast(temperature)
    known = learnt(shards, scorer)
    keys = np.concatenate([scorer.keys(one, one.inside_pool(), OWNER, known) for one in shards])
    asked = np.concatenate([one.inside_pool() % 2 == 0 for one in shards])
    assert low < asked[np.argsort(-keys)[:100]].mean() <= high


def test_a_document_has_the_same_key_whatever_others_are_asked_for(tmp_path: Path) -> None:
    one = cell(tmp_path, shards=1)[0]
    scorer = UsageContrast(0.5)
    known = learnt([one], scorer)
    everybody = scorer.keys(one, one.inside_pool(), OWNER, known)
    some = np.array([3, 50, 117])
    assert scorer.keys(one, some, OWNER, known).tobytes() == everybody[some].tobytes()


def test_documents_that_are_all_alike_are_drawn_by_noise(tmp_path: Path) -> None:
    one = shard(tmp_path, 0, ["pool"] * 9 + ["target"], np.tile(np.eye(DIM)[:1], (10, 1)))
    scorer = UsageContrast(0.1)
    keys = scorer.keys(one, one.inside_pool(), OWNER, learnt([one], scorer))
    assert (keys == noise(one, one.inside_pool(), OWNER)).all()


def test_directions_come_back_from_their_table_as_they_were() -> None:
    direction = Direction(np.random.default_rng(0).normal(size=DIM), scaled=True)
    found = from_table(to_table({OWNER: direction}))
    assert found[OWNER].vector.tobytes() == direction.vector.tobytes()
    assert from_table(to_table({})) == {}


def test_strategies_without_cluster_quotas_and_a_null_temperature_draw_all_alike() -> None:
    for strategy in ("kl", "deficit"):
        made = STRATEGIES[strategy].scorer(SampleConfig(strategy=strategy, budget=1))
        assert isinstance(made, UsageContrast)
        alike = STRATEGIES[strategy].scorer(SampleConfig(strategy=strategy, budget=1, similarity_temperature=None))
        assert type(alike) is Scorer
    for strategy in ("random", "unimax", "temperature"):
        assert type(STRATEGIES[strategy].scorer(SampleConfig(strategy=strategy, budget=1))) is Scorer
