"""Bits per byte of groups of documents."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa
import pytest

from compass_ray import records
from compass_ray.evaluate.bits import bits_per_byte


def loss(adapter: str, measures: str, lang: str, nats: float, n_bytes: int) -> dict[str, Any]:
    groups = {"adapter": adapter, "measures": measures, "target_lang": "sw", "lang": lang}
    return {**groups, "nats": nats, "tokens": 3, "bytes": n_bytes}


def test_all_bits_of_a_group_are_spread_over_all_its_bytes() -> None:
    rows = [
        loss("base", "other", "en", 6 * math.log(2), 3),
        loss("base", "new_usage", "sw", 30 * math.log(2), 10),
        loss("a", "new_usage", "sw", 2 * math.log(2), 1),
        loss("base", "new_usage", "sw", 1 * math.log(2), 90),
        loss("base", "new_usage", "en", 5.0, 0),
    ]
    found = bits_per_byte(pa.Table.from_pylist(rows, schema=records.LOSS)).to_pylist()
    shown = [
        (row["adapter"], row["measures"], row["lang"], row["documents"], row["tokens"], row["bytes"]) for row in found
    ]
    assert shown == [
        ("a", "new_usage", "sw", 1, 3, 1),
        ("base", "new_usage", "en", 1, 3, 0),
        ("base", "new_usage", "sw", 2, 6, 100),
        ("base", "other", "en", 1, 3, 3),
    ]
    assert found[1]["bits_per_byte"] is None
    assert [found[row]["bits_per_byte"] for row in (0, 2, 3)] == pytest.approx([2.0, 0.31, 2.0])


def test_no_loss_makes_no_group() -> None:
    assert bits_per_byte(records.LOSS.empty_table()).num_rows == 0
