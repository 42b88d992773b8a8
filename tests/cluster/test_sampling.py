"""Which rows a codebook is fitted with: all of them, or heavy ones first, and never held-out usage."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.cluster import kernels
from compass_ray.cluster.centering import LanguageMeans
from compass_ray.cluster.sampling import ROLE_MASS, Design, Group, design_sample, sample_rows
from compass_ray.holdout import heldout_mask
from compass_ray.vectors import to_column

GROUPS = Counter({("pool", "en"): 9000, ("pool", "sw"): 900, ("current", "sw"): 300, ("target", "sw"): 60})


def embeddings(groups: Counter[Group], seed: int = 0) -> pa.Table:
    """A shard with that many rows of each role and language."""
    rng = np.random.default_rng(seed)
    rows = [group for group, count in groups.items() for _ in range(count)]
    return pa.table(
        {
            "doc_id": records.numpy_to_ids(rng.integers(0, 256, (len(rows), 16), dtype=np.uint8)),
            "role": pa.array([role for role, _ in rows]),
            "owner": pa.array([None if role == "pool" else lang for role, lang in rows], pa.string()),
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
    made = design_sample(Counter(counts), rows, seed=0, holdout_fraction=0.25)
    expected = sum(made.chances[group] * count for group, count in counts.items())
    assert expected == pytest.approx(min(rows, sum(counts.values())))
    assert all(0 < chance <= 1 for chance in made.chances.values())
    of_row = kernels.row_weights(counts, ROLE_MASS)
    for group, weight in of_row.items():
        share = 0.75 if group[0] == "target" else 1.0
        assert made.weights[group] * made.chances[group] * share == pytest.approx(weight)
        assert made.chances[group] == 1 or all(
            made.chances[g] >= made.chances[group] for g in of_row if of_row[g] > weight
        )


def test_a_small_sample_of_a_large_pool_holds_all_usage_but_what_is_held_out() -> None:
    table = embeddings(GROUPS)
    made = design_sample(GROUPS, rows=1000, seed=3, holdout_fraction=0.3)
    sample = sample_rows(table, made, LanguageMeans({}))
    is_target = np.array(table["role"].to_pylist()) == "target"
    ids = records.ids_to_numpy(table["doc_id"])
    heldout = heldout_mask(table, 3, 0.3)
    assert 5 < heldout.sum() < 35
    found = {bytes(one) for one in sample.rows.ids}
    assert found.isdisjoint(map(bytes, ids[heldout]))
    assert found.issuperset(map(bytes, ids[is_target & ~heldout]))
    assert (sample.owners == "sw")[sample.roles == "target"].all()
    assert len(found) == pytest.approx(1000 - heldout.sum(), rel=0.1)
    assert sample.rows.weights[sample.roles == "pool"].sum() == pytest.approx(0.5, rel=0.1)
    assert sample.rows.weights.tolist() == made.weights_of(table)[made.weights_of(table) > 0].tolist()


def test_with_room_for_all_rows_all_but_held_out_usage_are_in() -> None:
    table = embeddings(GROUPS)
    made = design_sample(GROUPS, rows=GROUPS.total(), seed=3, holdout_fraction=0.3)
    assert ((made.weights_of(table) > 0) == ~heldout_mask(table, 3, 0.3)).all()
    assert sample_rows(table, made, LanguageMeans({})).inclusion.min() == 1


def test_a_design_survives_json() -> None:
    made = design_sample(GROUPS, rows=1000, seed=3, holdout_fraction=0.3)
    assert Design.from_json(json.loads(json.dumps(made.to_json()))) == made
