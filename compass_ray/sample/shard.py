"""One shard as the sample stage sees it: who is in it, and on demand what they say and where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.artifacts import Artifact
from compass_ray.holdout import heldout_mask
from compass_ray.sample.histogram import eligible_mask, pool_mask
from compass_ray.vectors import finite_rows, from_column, unit_rows

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """Rows are meant by their position in ``assignments``; texts and vectors are read when first asked for."""

    key: str
    assignments: pa.Table
    near_usage: pa.Table
    documents: Artifact
    embeddings: Artifact
    seed: int
    holdout_fraction: float
    trained: Mapping[str, pa.Array] = field(default_factory=dict)
    """By target language, contents that its adapter was trained on before."""
    memo: dict[str, Any] = field(default_factory=dict, compare=False)
    """What one target language's work found out and the next one's need not compute again."""

    def pool(self, target_lang: str) -> Positions:
        """Find the pool documents that may be drawn for a target language."""
        trained = self.trained.get(target_lang)
        return np.flatnonzero(eligible_mask(self.assignments, self.near_usage, target_lang, trained))

    def inside_pool(self) -> Positions:
        """Find the pool documents that are no outliers. Whether a target language may have them does not matter."""
        return np.flatnonzero(pool_mask(self.assignments))

    def usage(self, target_lang: str) -> Positions:
        """Find a target language's usage documents, neither held out nor outliers."""
        return np.flatnonzero(
            self._of(target_lang, "usage") & ~heldout_mask(self.assignments, self.seed, self.holdout_fraction)
        )

    def current(self, target_lang: str) -> Positions:
        """Find a target language's current documents that are no outliers."""
        return np.flatnonzero(self._of(target_lang, "current"))

    def _of(self, target_lang: str, role: str) -> NDArray[np.bool_]:
        rows = self.assignments
        of_target_lang = pc.fill_null(pc.equal(rows["target_lang"], target_lang), False)
        return np.asarray(pc.and_(pc.and_(pc.equal(rows["role"], role), of_target_lang), pc.invert(rows["outlier"])))

    def ids(self, positions: Positions) -> NDArray[np.uint8]:
        """Read document ids, shape (n, 16)."""
        return records.ids_to_numpy(self.assignments["doc_id"])[positions]

    def clusters(self, positions: Positions) -> NDArray[np.int32]:
        """Read cluster numbers, shape (n,)."""
        numbers: NDArray[np.int32] = self.assignments["cluster"].to_numpy()[positions]
        return numbers

    def vectors(self, positions: Positions) -> NDArray[np.float32]:
        """Read unit vectors as the encoder gave them. They are not centred; shape (n, d)."""
        ids, rows = self._vectors
        wanted: NDArray[np.float32] = rows[np.asarray(self._in(ids, positions))]
        return wanted

    def texts(self, positions: Positions) -> list[str]:
        """Read what was embedded."""
        texts: list[str] = self._texts["text"].take(self._in(self._texts["doc_id"], positions)).to_pylist()
        return texts

    @cached_property
    def _vectors(self) -> tuple[pa.ChunkedArray, NDArray[np.float32]]:
        table = finite_rows(self.embeddings.read(self.key, ["doc_id", "vector"]))
        return table["doc_id"], unit_rows(from_column(table["vector"]))

    @cached_property
    def _texts(self) -> pa.Table:
        return records.documents_only(self.documents.read(self.key, ["doc_id", "text", "reject"]))

    def _in(self, ids: pa.ChunkedArray, positions: Positions) -> pa.Array:
        wanted = self.assignments["doc_id"].take(pa.array(positions)).combine_chunks()
        return pc.index_in(wanted, value_set=ids.combine_chunks())
