"""The best documents of one shard for every cell that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.sample.draw import Cells, Unit, keep_best
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.shard import Positions, Shard


def candidates(shard: Shard, requests: pa.Table, scorer: Scorer, known: Mapping[str, Any], unit: Unit) -> pa.Table:
    """Find the best documents of a shard for every cell. They are never more than are asked for.

    Parameters
    ----------
    requests : Table
        Schema QUOTA, and ``nearest``: whether rows come nearest to usage first, without noise.
    known : mapping
        What the scorer has found out, by target language.

    Returns
    -------
    Table of schema CANDIDATE
    """
    parts = [records.CANDIDATE.empty_table()]
    for target_lang in pc.unique(requests["target_lang"]).to_pylist():
        wanted = requests.filter(pc.equal(requests["target_lang"], target_lang))
        positions = shard.pool(target_lang)
        rows = _without_keys(shard, positions, target_lang)
        inside = Cells(wanted).of(rows) >= 0
        positions, rows = positions[inside], rows.filter(pa.array(inside))
        if wanted["nearest"][0].as_py():
            keys = scorer.nearness(shard, positions, known.get(target_lang))
        else:
            keys = scorer.keys(shard, positions, target_lang, known.get(target_lang))
        rows = rows.set_column(rows.schema.get_field_index("key"), "key", pa.array(keys, pa.float64()))
        parts.append(keep_best(rows.filter(pa.array(keys > -np.inf)), wanted, unit))
    return pa.concat_tables(parts)


def _without_keys(shard: Shard, positions: Positions, target_lang: str) -> pa.Table:
    """Turn the rows into candidates whose keys are null still. Scorers look only at rows that a cell asks for."""
    rows = shard.assignments.take(pa.array(positions))
    count = rows.num_rows
    columns = {
        "target_lang": pa.array([target_lang] * count, pa.string()),
        "cluster": rows["cluster"],
        "lang": rows["lang"],
        "key": pa.nulls(count, pa.float64()),
        "doc_id": rows["doc_id"],
        "tokens": rows["tokens"].cast(pa.int64()),
        "similarity": rows["similarity"],
        "shard": pa.array(np.full(count, int(shard.key), dtype=np.int32)),
    }
    return pa.table(columns, schema=records.CANDIDATE)
