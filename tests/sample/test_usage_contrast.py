"""Which documents of a cell are likelier to be drawn: those that lie more towards usage than the pool does."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from compass_ray import records
from compass_ray.artifacts import Artifact, artifact
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import shares_of
from compass_ray.sample.problem import Problem
from compass_ray.sample.scorer import Question, Scorer, noise
from compass_ray.sample.shard import Shard
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.usage_contrast import (
    Direction,
    UsageContrast,
    contrast,
    from_table,
    products,
    sums,
    to_table,
)
from compass_ray.vectors import to_column, unit_rows

DIM, TARGET_LANG = 8, "sw"
NOBODY = Problem(
    target_lang=TARGET_LANG,
    languages=("en",),
    usage=np.array([1, 0]),
    heldout=np.zeros(2, dtype=np.int64),
    current=np.array([9, 0]),
    capacity=np.array([[1]]),
    other_usage=np.zeros(1, dtype=np.int64),
    soft_counts=np.ones(1),
    own_soft_counts=np.ones(1),
    current_tokens=np.zeros(2, dtype=np.int64),
    capacity_tokens=np.array([[1]]),
    usage_tokens=np.ones(1, dtype=np.int64),
    distance=np.zeros((1, 1)),
)
QUESTION = Question(NOBODY, shares_of(NOBODY), 1)
SCORER = UsageContrast(0.35)


def shard(
    folder: Path,
    number: int,
    roles: list[str],
    vectors: np.ndarray,
    *,
    outlier: np.ndarray | None = None,
    target_langs: list[str] | None = None,
    missing: np.ndarray | None = None,
    holdout_fraction: float = 0.0,
) -> Shard:
    """One cluster, one language: a single cell."""
    count = len(roles)
    ids = records.numpy_to_ids(np.random.default_rng(number).integers(0, 256, (count, 16), dtype=np.uint8))
    assignments = pa.table(
        {
            "doc_id": ids,
            "content_id": ids,
            "role": roles,
            "target_lang": target_langs or [None if role == "pool" else TARGET_LANG for role in roles],
            "lang": ["en"] * count,
            "tokens": pa.array([5] * count, pa.int32()),
            "cluster": pa.array([0] * count, pa.int32()),
            "similarity": pa.array([0.5] * count, pa.float32()),
            "outlier": np.zeros(count, dtype=bool) if outlier is None else outlier,
            "similarities": pa.nulls(count, records.ASSIGNMENT.field("similarities").type),
        },
        schema=records.ASSIGNMENT,
    )
    key = f"{number:05d}"
    embeddings = artifact(str(folder), f"embed{number}", {})
    shuffled = np.random.default_rng(0).permutation(count)  # what is embedded need not be in the order of assignments
    rows = pa.table({"doc_id": ids, "vector": to_column(vectors, missing)}).take(pa.array(shuffled))
    embeddings.commit([embeddings.write(key, rows)])
    present = assignments if missing is None else assignments.filter(pa.array(~missing))
    nowhere = Artifact("nowhere", "none", {})
    return Shard(key, present, records.NEAR_USAGE.empty_table(), nowhere, embeddings, 0, holdout_fraction)


def cell(folder: Path, shards: int = 3, pool: int = 200, usage: int = 5, current: int = 0) -> list[Shard]:
    """Half of the pool is about what usage is about (the first axis), half, and current data, about the second."""
    found = []
    for number in range(shards):
        rng = np.random.default_rng(number)
        asked = np.r_[np.arange(pool) % 2 == 0, np.ones(usage, dtype=bool), np.zeros(current, dtype=bool)]
        centers = np.where(asked[:, None], np.eye(DIM)[0], np.eye(DIM)[1])
        vectors = unit_rows(centers + 0.5 * rng.normal(size=centers.shape))
        found.append(shard(folder, number, ["pool"] * pool + ["usage"] * usage + ["current"] * current, vectors))
    return found


def learnt(shards: list[Shard], scorer: UsageContrast = SCORER, question: Question = QUESTION) -> Direction:
    """What the passes over the shards find out."""
    known: Any = None
    passes = 0
    while scorer.missing(question, known):
        parts = [scorer.gather(one, question, known) for one in shards]
        assert (reduce(scorer.merge, parts) == reduce(scorer.merge, parts[::-1])).all()
        known = scorer.conclude(question, known, reduce(scorer.merge, parts))
        passes += 1
    assert passes == 2
    assert isinstance(known, Direction)
    return known


def log_odds(shards: list[Shard], known: Direction) -> np.ndarray:
    """Of all pool documents."""
    return np.concatenate([products(one.vectors(one.inside_pool()), known.vector) for one in shards])


@pytest.mark.parametrize("current", [0, 20])
def test_the_direction_is_from_the_middle_of_pool_and_current_data_to_usage(tmp_path: Path, current: int) -> None:
    shards = cell(tmp_path, current=current)
    known = learnt(shards)
    usage, pool, trained_on = (
        np.concatenate([one.vectors(rows(one)) for one in shards]).astype(np.float64)
        for rows in (lambda one: one.usage(TARGET_LANG), Shard.inside_pool, lambda one: one.current(TARGET_LANG))
    )
    middle = np.mean([rows.mean(axis=0) for rows in (pool, trained_on) if len(rows)], axis=0)
    others = [rows for rows in (pool, trained_on) if len(rows)]
    of_middle = middle @ middle + sum(
        (of_different(rows) - rows.mean(axis=0) @ rows.mean(axis=0)) / len(others) ** 2 for rows in others
    )
    difference = usage.mean(axis=0) - middle
    cosine = known.vector @ difference / np.linalg.norm(known.vector) / np.linalg.norm(difference)
    assert cosine == pytest.approx(1, abs=1e-6)
    distance_sq = of_different(usage) - 2 * usage.mean(axis=0) @ middle + of_middle
    assert log_odds(shards, known).std() == pytest.approx(distance_sq / (pool @ difference).std(), rel=1e-3)


def of_different(rows: np.ndarray) -> float:
    """The mean product of two different rows."""
    total = rows.sum(axis=0)
    return float((total @ total - len(rows)) / (len(rows) * (len(rows) - 1)))


@pytest.mark.parametrize("current", [2, 3, 10])
def test_few_current_documents_like_all_others_do_not_make_usage_stand_out(current: int) -> None:
    rng = np.random.default_rng(current)
    codes = np.arange

    def distance_sq() -> float:
        draws = (unit_rows(rng.normal(size=(n, 64)) + 1) for n in (30, 2000, current))
        return contrast(*(sums(rows, codes(len(rows))) for rows in draws)).distance_sq

    # self-products of current data left in: 0.28, 0.19 and 0.05 / 4
    assert np.mean([distance_sq() for _ in range(200)]) < 0.01


def test_a_single_current_document_has_no_say_in_where_usage_lies() -> None:
    rng = np.random.default_rng(0)
    usage, pool, one = (sums(unit_rows(rng.normal(size=(n, 8))), np.arange(n)) for n in (9, 50, 1))
    alone, without = contrast(usage, pool, one), contrast(usage, pool, np.zeros(10))
    assert alone.difference.tobytes() == without.difference.tobytes()
    assert alone.distance_sq == without.distance_sq


@pytest.mark.parametrize("copies", [2, 30])
def test_a_question_asked_again_says_no_more_of_where_usage_lies(copies: int) -> None:
    rng = np.random.default_rng(1)
    usage, rest = unit_rows(rng.normal(size=(6, 16)) + 1), sums(unit_rows(rng.normal(size=(50, 16))), np.arange(50))
    once = contrast(sums(usage, np.arange(6)), rest, rest)
    again = contrast(sums(np.tile(usage, (copies, 1)), np.tile(np.arange(6), copies)), rest, rest)
    assert again.distance_sq == pytest.approx(once.distance_sq, rel=1e-5)
    assert again.difference == pytest.approx(once.difference, rel=1e-5)
    one = contrast(sums(np.tile(usage[:1], (copies, 1)), np.zeros(copies, dtype=np.int64)), rest, rest)
    assert one.distance_sq == 0


@pytest.mark.parametrize("documents", [12, 100])
def test_usage_that_could_be_of_the_pool_hardly_pulls(tmp_path: Path, documents: int) -> None:
    rng = np.random.default_rng(documents)
    vectors = unit_rows(rng.normal(size=(2000 + documents, 64)))
    one = shard(tmp_path, 0, ["pool"] * 2000 + ["usage"] * documents, vectors)
    assert log_odds([one], learnt([one])).std() < 0.25
    pull = unit_rows(vectors + np.r_[np.zeros((2000, 64)), np.ones((documents, 64))])
    other = shard(tmp_path, 1, ["pool"] * 2000 + ["usage"] * documents, pull)
    assert log_odds([other], learnt([other])).std() > 2


@pytest.mark.parametrize(("temperature", "low", "high"), [(1000.0, 0.4, 0.6), (0.35, 0.9, 1.0)])
def test_of_a_cell_the_documents_that_usage_asks_for_are_drawn_the_more_the_lower_the_temperature(
    tmp_path: Path, temperature: float, low: float, high: float
) -> None:
    shards = cell(tmp_path)
    scorer = UsageContrast(temperature)
    known = learnt(shards, scorer)
    keys = np.concatenate([scorer.keys(one, one.inside_pool(), TARGET_LANG, known) for one in shards])
    asked = np.concatenate([one.inside_pool() % 2 == 0 for one in shards])
    assert low < asked[np.argsort(-keys)[:100]].mean() <= high


def test_a_document_has_the_same_key_whatever_others_are_asked_for(tmp_path: Path) -> None:
    one = cell(tmp_path, shards=1)[0]
    known = learnt([one])
    everybody = SCORER.keys(one, one.inside_pool(), TARGET_LANG, known)
    some = np.array([3, 50, 117])
    assert SCORER.keys(one, some, TARGET_LANG, known).tobytes() == everybody[some].tobytes()


def test_held_out_outlying_and_foreign_rows_do_not_move_the_direction(tmp_path: Path) -> None:
    roles = ["pool"] * 60 + ["usage"] * 60 + ["current"] * 60
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng.normal(size=(180, DIM)) + np.repeat([0, 1, 0], 60)[:, None])
    outlier = rng.random(180) < 0.2
    target_langs: Any = [None if role == "pool" else TARGET_LANG if rng.random() < 0.7 else "ta" for role in roles]
    given: Any = {"outlier": outlier, "target_langs": target_langs, "holdout_fraction": 0.3}
    one = shard(tmp_path, 0, roles, vectors, **given)
    seen = np.concatenate([one.inside_pool(), one.usage(TARGET_LANG), one.current(TARGET_LANG)])
    unseen = np.setdiff1d(np.arange(180), seen)
    foreign = [i for i in range(60, 180) if target_langs[i] == "ta"]
    assert {*np.flatnonzero(outlier), *foreign} < {*unseen}  # and held-out usage beside
    moved = vectors.copy()
    moved[unseen] = unit_rows(rng.normal(size=(len(unseen), DIM)))
    other = shard(tmp_path / "moved", 0, roles, moved, **given)
    assert learnt([one]).vector.any()
    assert learnt([other]).vector.tobytes() == learnt([one]).vector.tobytes()
    moved[seen[-1]] *= -1
    assert (
        learnt([shard(tmp_path / "seen", 0, roles, moved, **given)]).vector.tobytes() != learnt([one]).vector.tobytes()
    )


def test_current_data_that_are_not_trained_on_have_no_say(tmp_path: Path) -> None:
    shards = cell(tmp_path, current=20)
    rows = [one.assignments.filter(pc.not_equal(one.assignments["role"], "current")) for one in shards]
    without = [replace(one, assignments=kept, memo={}) for one, kept in zip(shards, rows, strict=True)]
    untrained = Question(replace(NOBODY, current=np.zeros(2, dtype=np.int64)), QUESTION.shares, 1)
    assert learnt(shards, question=untrained).vector.tobytes() == learnt(without).vector.tobytes()
    assert learnt(shards).vector.tobytes() != learnt(without).vector.tobytes()


def test_shards_without_usage_or_pool_and_rows_without_a_vector_are_nothing_special(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = unit_rows(rng.normal(size=(30, DIM)))
    pool = shard(tmp_path, 0, ["pool"] * 20, vectors[:20])
    usage = shard(tmp_path, 1, ["usage"] * 10, vectors[20:])
    together = shard(tmp_path, 2, ["pool"] * 20 + ["usage"] * 10, vectors)
    assert learnt([pool, usage]).vector == pytest.approx(learnt([together]).vector, rel=1e-5)
    missing = np.arange(20) < 3
    holes = shard(tmp_path, 3, ["pool"] * 20, vectors[:20], missing=missing)
    rest = shard(tmp_path, 4, ["pool"] * 17, vectors[3:20])
    assert learnt([holes, usage]).vector == pytest.approx(learnt([rest, usage]).vector, rel=1e-9)


@pytest.mark.parametrize("kind", ["pool in one point", "no pool inside", "one usage document"])
def test_where_there_is_no_direction_documents_are_drawn_by_noise(tmp_path: Path, kind: str) -> None:
    vectors = unit_rows(np.random.default_rng(0).normal(size=(12, DIM)))
    roles = ["pool"] * 9 + ["usage"] * 3
    outlier = np.zeros(12, dtype=bool)
    if kind == "pool in one point":
        vectors[:9] = vectors[0]
    elif kind == "no pool inside":
        outlier[:9] = True
    else:
        roles[9:11] = ["current"] * 2
    one = shard(tmp_path, 0, roles, vectors, outlier=outlier)
    keys = SCORER.keys(one, np.arange(9), TARGET_LANG, learnt([one]))
    assert keys.tobytes() == noise(one, np.arange(9), TARGET_LANG).tobytes()


def test_directions_come_back_from_their_table_as_they_were() -> None:
    direction = Direction(np.random.default_rng(0).normal(size=DIM))
    found = from_table(to_table({TARGET_LANG: direction}))
    assert found[TARGET_LANG].vector.tobytes() == direction.vector.tobytes()
    assert from_table(to_table({})) == {}


def test_strategies_without_cluster_quotas_and_a_temperature_that_is_off_draw_all_alike() -> None:
    with_quotas: list[str] = ["kl", "deficit"]
    for strategy in with_quotas:
        fields: Any = {"strategy": strategy, "budget": 1, "shortfall": "stop"}
        scorer = strategy_of(strategy).scorer(SampleConfig(**fields))
        assert isinstance(scorer, UsageContrast)
        assert scorer.missing(QUESTION, None)
        off = strategy_of(strategy).scorer(SampleConfig(**fields, similarity_temperature="off"))
        assert not off.missing(QUESTION, None)
    alike: list[str] = ["random", "unimax", "temperature"]
    for strategy in alike:
        assert type(strategy_of(strategy).scorer(SampleConfig(strategy=strategy, budget=1))) is Scorer
