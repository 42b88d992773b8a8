"""Which rows a codebook is fitted with: all of them, or heavy ones first."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.centering import LanguageMeans
from compass_ray.cluster import kernels
from compass_ray.cluster.config import ClusterConfig
from compass_ray.cluster.sampling import ROLE_MASS, Design, Group, design_sample, known_rows, sample_rows
from compass_ray.cluster.stage import CodebookSpec
from compass_ray.holdout import heldout_mask
from compass_ray.vectors import to_column

GROUPS = Counter({("pool", "en"): 9000, ("pool", "sw"): 900, ("current", "sw"): 300, ("usage", "sw"): 60})


def embeddings(groups: Counter[Group], seed: int = 0) -> pa.Table:
    """A shard with that many rows of each role and language."""
    rng = np.random.default_rng(seed)
    rows = [group for group, count in groups.items() for _ in range(count)]
    ids = records.numpy_to_ids(rng.integers(0, 256, (len(rows), 16), dtype=np.uint8))
    return pa.table(
        {
            "doc_id": ids,
            "content_id": ids,
            "role": pa.array([role for role, _ in rows]),
            "target_lang": pa.array([None if role == "pool" else lang for role, lang in rows], pa.string()),
            "lang": pa.array([lang for _, lang in rows]),
            "vector": to_column(rng.normal(size=(len(rows), 4)).astype(np.float32)),
        }
    )


@given(
    counts=st.dictionaries(
        st.tuples(st.sampled_from(sorted(ROLE_MASS)), st.sampled_from(["sw", "hi", "en"])),
        st.integers(1, 10**5),
        min_size=1,
    ),
    rows=st.integers(1, 10**6),
)
def test_as_many_rows_are_expected_as_are_asked_for_or_there_are_and_groups_keep_their_weight(
    counts: dict[Group, int], rows: int
) -> None:
    made = design_sample(counts, rows, seed=0)
    expected = sum(made.chances[group] * count for group, count in counts.items())
    assert expected == pytest.approx(min(rows, sum(counts.values())))
    assert all(0 < chance <= 1 for chance in made.chances.values())
    of_row = kernels.row_weights(counts, ROLE_MASS)
    for group, weight in of_row.items():
        assert made.weights[group] * made.chances[group] == pytest.approx(weight)
        heavier = [made.chances[other] for other in of_row if of_row[other] > weight]
        assert made.chances[group] == 1 or min(heavier, default=1) >= made.chances[group]


def test_a_small_sample_of_a_large_pool_holds_all_usage() -> None:
    table = embeddings(GROUPS)
    made = design_sample(GROUPS, rows=1000, seed=3)
    sample = sample_rows(table, made, LanguageMeans({}))
    assert (sample.roles == "usage").sum() == 60
    assert (sample.target_langs == "sw")[sample.roles == "usage"].all()
    assert len(sample.roles) == pytest.approx(1000, rel=0.1)
    assert sample.rows.weights[sample.roles == "pool"].sum() == pytest.approx(0.5, rel=0.1)
    kept = made.weights_of(table) > 0
    assert sample.rows.weights.tolist() == made.weights_of(table)[kept].tolist()
    assert sample.inclusion.tolist() == [
        made.chances[role, lang]
        for role, lang in zip(
            np.array(table["role"].to_pylist())[kept], np.array(table["lang"].to_pylist())[kept], strict=True
        )
    ]


def test_with_room_for_all_rows_all_are_in() -> None:
    table = embeddings(GROUPS)
    sample = sample_rows(table, design_sample(GROUPS, rows=GROUPS.total(), seed=3), LanguageMeans({}))
    assert len(sample.roles) == GROUPS.total()
    assert sample.inclusion.min() == 1


def test_known_rows_have_a_vector_and_are_not_held_out_and_a_sample_of_them_keeps_the_weight_of_roles() -> None:
    table = embeddings(GROUPS)
    vectors = table["vector"].to_pylist()
    vectors[0] = None
    broken = table.set_column(5, "vector", pa.array(vectors, table.schema.field("vector").type))
    known = known_rows(broken, 3, 0.3)
    held = heldout_mask(table, 3, 0.3)
    assert 5 < held.sum() < 35
    assert known["doc_id"].equals(table.filter(pa.array(~held))["doc_id"].slice(1))
    fitting = CodebookSpec(ClusterConfig(), {}, 3, 0.3, "cpu")
    sample = sample_rows(known_rows(table, 3, 0.3), fitting.known_sample(GROUPS, 1000), LanguageMeans({}))
    assert (sample.roles == "usage").sum() == 60 - held.sum()
    assert len(sample.roles) == pytest.approx(1000, rel=0.1)
    expected = 0.25 * (60 - held.sum()) / (0.7 * 60)
    assert sample.rows.weights[sample.roles == "usage"].sum() == pytest.approx(expected)


def test_a_design_survives_json() -> None:
    made = design_sample(GROUPS, rows=1000, seed=3)
    assert Design.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_rows_that_are_held_out_weigh_nothing_and_others_what_they_did() -> None:
    table, design = embeddings(GROUPS), design_sample(GROUPS, 1000, 3, holdout_fraction=0.3)
    held = heldout_mask(table, 3, 0.3)
    weights = design.weights_of(table)
    assert held.any()
    assert not weights[held].any()
    everybody = replace(design, holdout_fraction=0.0).weights_of(table)
    assert weights[~held].tolist() == everybody[~held].tolist()
