"""Which usage is held out: a fraction of it, by content, and nothing else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import records
from compass_ray.holdout import heldout_mask


def rows(role: str, count: int, seed: int = 0) -> pa.Table:
    ids = np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)
    return pa.table({"content_id": records.numpy_to_ids(ids), "role": pa.array([role] * count)})


USAGE = rows("usage", 20_000)


def test_about_the_asked_fraction_of_usage_is_held_out() -> None:
    assert heldout_mask(USAGE, 0, 0.3).mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("role", ["pool", "current"])
def test_only_usage_is_held_out(role: str) -> None:
    assert not heldout_mask(rows(role, 1000), 0, 0.99).any()


def test_nothing_is_held_out_at_fraction_zero() -> None:
    assert not heldout_mask(USAGE, 0, 0.0).any()


def test_a_larger_fraction_holds_out_more_and_keeps_what_was() -> None:
    small, large = heldout_mask(USAGE, 0, 0.2), heldout_mask(USAGE, 0, 0.6)
    assert (small <= large).all()
    assert small.sum() < large.sum()


def test_another_seed_holds_out_other_rows() -> None:
    assert (heldout_mask(USAGE, 0, 0.3) != heldout_mask(USAGE, 1, 0.3)).mean() == pytest.approx(0.42, abs=0.02)


def test_repeated_questions_fall_on_the_same_side() -> None:
    mask = heldout_mask(pa.concat_tables([rows("usage", 40)] * 3), 0, 0.5).reshape(3, 40)
    assert (mask == mask[0]).all()
    assert 5 < mask[0].sum() < 35


def test_a_text_that_two_languages_ask_for_is_held_out_of_both_or_of_none() -> None:
    contents = USAGE["content_id"]
    ids = (rows("usage", USAGE.num_rows, seed)["content_id"] for seed in (1, 2))  # of role, language and content
    one, other = (
        USAGE.append_column("doc_id", doc_id).append_column("target_lang", [["sw"] * len(contents)]) for doc_id in ids
    )
    assert (heldout_mask(one, 0, 0.3) == heldout_mask(other, 0, 0.3)).all()
