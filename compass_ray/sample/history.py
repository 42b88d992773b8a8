"""What an adapter was made for and trained on before: what its update counts beside new usage, and leaves alone.

For the sampler it is like one more shard: former usage has a say in what is asked for, what was trained on is current
data, and none of it is drawn again. No text and no vector of it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.artifacts import digest, to_parquet
from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.histogram import merge

FORMER = "former"
"""The role of former usage in a histogram."""


@dataclass(frozen=True)
class History:
    """The past of adapters, by target language.

    Attributes
    ----------
    usage : mapping of str to Table of schema HISTOGRAM
        What usage an adapter was made for, without what was held out of it; roles do not matter.
    trained : mapping of str to Table of schema TRAINED
        What it was trained on.
    unseen : Array of ids
        Contents that are not to be trained on: held out before, or near to former usage.
    new_fraction : float
        How much of all usage new usage is, in (0, 1].
    """

    usage: Mapping[str, pa.Table]
    trained: Mapping[str, pa.Table]
    unseen: pa.Array
    new_fraction: float

    def contents(self, target_lang: str) -> pa.Array:
        """List the ids of the contents that an adapter was trained on, or is never to be."""
        table = self.trained.get(target_lang, records.TRAINED.empty_table())
        return pc.unique(pa.chunked_array([*table["content_id"].chunks, self.unseen], records.ID))

    def rows(self, new: pa.Table) -> pa.Table:
        """Count the past beside new usage.

        Former usage is scaled, so that new usage has its share whatever the number of its documents. It is worth no
        more than it was: a document that counts w times adds w² to the squares.

        Parameters
        ----------
        new : Table of schema HISTOGRAM
            Of all shards.

        Returns
        -------
        Table of schema HISTOGRAM
            Former usage as role ``former``, what was trained on as role ``current``.
        """
        parts = [records.HISTOGRAM.empty_table()]
        usage = new.filter(pc.equal(new["role"], "usage"))
        for target_lang in sorted(self.trained):
            count = int(pc.sum(usage.filter(pc.equal(usage["target_lang"], target_lang))["documents"]).as_py() or 0)
            if count:  # an adapter that nobody asks anew is not updated
                parts += [self._former(target_lang, count), _current(target_lang, self.trained[target_lang])]
        return merge(parts)

    def _former(self, target_lang: str, new: int) -> pa.Table:
        rows = self.usage.get(target_lang, records.HISTOGRAM.empty_table())
        documents = rows["documents"].to_numpy()
        total = round(new * (1 - self.new_fraction) / self.new_fraction) if documents.any() else 0
        scale = total / max(1, int(documents.sum()))
        scaled = proportional_quotas(documents.astype(np.float64), np.full(len(documents), total), total)
        counts = {
            "documents": scaled,
            "tokens": np.rint(rows["tokens"].to_numpy() * scale).astype(np.int64),
            "squares": np.ceil(rows["squares"].to_numpy() * scale**2).astype(np.int64),
        }
        return _counted(target_lang, FORMER, rows["lang"], rows["cluster"], counts).filter(pa.array(scaled > 0))

    def fingerprint(self) -> str:
        """Hash all of it."""
        tables = [
            (name, target_lang, part[target_lang])
            for name, part in (("usage", self.usage), ("trained", self.trained))
            for target_lang in sorted(part)
        ]
        body = b"".join(f"{name} {lang} ".encode() + to_parquet(table) for name, lang, table in tables)
        unseen = records.ids_to_numpy(self.unseen).tobytes()
        return digest(body + unseen + str(self.new_fraction).encode())

    def former_counts(self, histogram: pa.Table, n_clusters: int, measure: str) -> dict[str, NDArray[np.int64]]:
        """Add up a measure of former usage by cluster without outliers, shape (n_clusters,) by target language."""
        rows = histogram.filter(pc.equal(histogram["role"], FORMER))
        counts = {target_lang: np.zeros(n_clusters + 1, dtype=np.int64) for target_lang in sorted(self.usage)}
        for target_lang, total in counts.items():
            mine = rows.filter(pc.equal(rows["target_lang"], target_lang))
            np.add.at(total, mine["cluster"].to_numpy(), mine[measure].to_numpy())
        return {target_lang: total[:n_clusters] for target_lang, total in counts.items()}


def _current(target_lang: str, trained: pa.Table) -> pa.Table:
    rows = pc.count(trained["content_id"]).as_py()
    ones = np.ones(rows, dtype=np.int64)
    tokens = trained["tokens"].cast(pa.int64()).to_numpy()
    counts = {"documents": ones, "tokens": tokens, "squares": ones}  # they are distinct
    return merge([_counted(target_lang, "current", trained["lang"], trained["cluster"], counts)])


def _counted(
    target_lang: str,
    role: str,
    langs: pa.ChunkedArray,
    clusters: pa.ChunkedArray,
    counts: Mapping[str, NDArray[np.int64]],
) -> pa.Table:
    columns = {
        "target_lang": pa.array([target_lang] * len(langs), pa.string()),
        "role": pa.array([role] * len(langs), pa.string()),
        "lang": langs,
        "cluster": clusters,
        **{name: pa.array(values, pa.int64()) for name, values in counts.items()},
    }
    return pa.table(columns).select(records.HISTOGRAM.names).cast(records.HISTOGRAM)
