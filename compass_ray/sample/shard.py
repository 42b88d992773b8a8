"""One shard as the sample stage sees it: who is in it, and on demand what they say and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.artifacts import Artifact
from compass_ray.sample.histogram import eligible_mask, heldout_mask
from compass_ray.vectors import from_column, unit_rows

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """Rows are meant by their position in ``assignments``; texts and vectors are read when first asked for."""

    key: str
    assignments: pa.Table
    documents: Artifact
    embeddings: Artifact
    seed: int
    holdout_fraction: float
    memo: dict[str, Any] = field(default_factory=dict, compare=False)
    """What one owner's work found out and the next one's need not compute again."""

    def pool(self, owner: str) -> Positions:
        """Pool documents that may be drawn for an owner."""
        return np.flatnonzero(eligible_mask(self.assignments, owner))

    def usage(self, owner: str) -> Positions:
        """An owner's target documents that are neither held out nor outliers."""
        rows = self.assignments
        of_owner = pc.fill_null(pc.equal(rows["owner"], owner), False)
        mine = np.asarray(pc.and_(pc.and_(pc.equal(rows["role"], "target"), of_owner), pc.invert(rows["outlier"])))
        return np.flatnonzero(mine & ~heldout_mask(rows, self.seed, self.holdout_fraction))

    def ids(self, positions: Positions) -> NDArray[np.uint8]:
        """Document ids, shape (n, 16)."""
        return records.ids_to_numpy(self.assignments["doc_id"])[positions]

    def clusters(self, positions: Positions) -> NDArray[np.int32]:
        """Cluster numbers, shape (n,)."""
        numbers: NDArray[np.int32] = self.assignments["cluster"].to_numpy()[positions]
        return numbers

    def vectors(self, positions: Positions) -> NDArray[np.float32]:
        """Unit vectors as the encoder gave them, not centred, shape (n, d)."""
        wanted = self._in(self._vectors, positions)
        return unit_rows(from_column(self._vectors["vector"].take(wanted)))

    def texts(self, positions: Positions) -> list[str]:
        """What was embedded."""
        texts: list[str] = self._texts["text"].take(self._in(self._texts, positions)).to_pylist()
        return texts

    @cached_property
    def _vectors(self) -> pa.Table:
        return self.embeddings.read(self.key, ["doc_id", "vector"])

    @cached_property
    def _texts(self) -> pa.Table:
        return records.documents_only(self.documents.read(self.key, ["doc_id", "text", "reject"]))

    def _in(self, table: pa.Table, positions: Positions) -> pa.Array:
        wanted = self.assignments["doc_id"].take(pa.array(positions)).combine_chunks()
        return pc.index_in(wanted, value_set=table["doc_id"].combine_chunks())
