"""Language means, subtracted so that vectors tell what is said and not in which language.

Clusters are made without them under ``embed.center: language``, where the means belong to the codebook and documents
that come later are moved by the same vectors; and documents of two languages are compared without them, to find copies
of one meaning. Sums are in fixed point, so their bits do not depend on how shards are spread. Cost: one pass over the
vectors; a language costs ``8·d`` bytes a shard on the way to the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import shards
from compass_ray.artifacts import Artifact, Receipt
from compass_ray.vectors import from_column, unit_rows

KEY = "means"
Sums = dict[str, tuple[int, NDArray[np.int64]]]
"""Documents, and sum of vectors (d,) times ``shards.VECTOR_SUM_SCALE`` in fixed point, by language."""
MIN_DOCUMENTS = 20
"""A language with fewer has no mean of its own: what is left of them without it would be noise."""


@dataclass(frozen=True)
class LanguageMeans:
    """Mean vector of each language, shape (d,) float32; without any, vectors stay where they are.

    A language with fewer than ``MIN_DOCUMENTS`` when the means were made is moved by the mean of all, under ``""``.
    """

    by_language: Mapping[str, NDArray[np.float32]]

    def unit_rows(self, embeddings: pa.Table) -> NDArray[np.float32]:
        """Move the vectors of an embedding table and scale them to length one.

        The table is without nulls; the shape is (n, d).
        """
        return self.subtracted(unit_rows(from_column(embeddings["vector"])), embeddings["lang"].to_pylist())

    def subtracted(self, rows: NDArray[np.float32], langs: Sequence[str]) -> NDArray[np.float32]:
        """Move unit rows of these languages and scale them to length one. The shape is (n, d)."""
        if not self.by_language or not len(rows):
            return rows
        names, codes = np.unique(langs, return_inverse=True)
        everyone = self.by_language[""]
        return unit_rows(rows - np.stack([self.by_language.get(str(name), everyone) for name in names])[codes])

    def write(self, target: Artifact) -> Receipt:
        """Write the means as a file of the codebook's artifact."""
        names = sorted(self.by_language)
        table = np.stack([self.by_language[name] for name in names])
        mean = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
        return target.write(KEY, pa.table({"lang": names, "mean": mean}), {})


def read_means(source: Artifact) -> LanguageMeans:
    """Read the means of a codebook that has some."""
    table = source.read(KEY)
    column = table["mean"].combine_chunks()
    rows = column.flatten().to_numpy().reshape(len(column), -1)
    return LanguageMeans(dict(zip(table["lang"].to_pylist(), rows, strict=True)))


def language_sums(embeddings: pa.Table) -> Sums:
    """Sum one shard's unit vectors by language."""
    rows = unit_rows(from_column(embeddings["vector"])).astype(np.float64)
    langs = np.array(embeddings["lang"].to_pylist(), dtype=np.str_)
    return {
        str(lang): (
            int((langs == lang).sum()),
            shards.to_fixed(rows[langs == lang].sum(axis=0) * shards.VECTOR_SUM_SCALE),
        )
        for lang in np.unique(langs)
    }


def language_means(parts: Iterable[Sums]) -> LanguageMeans:
    """Compute means over all shards, and over all languages under ``""``."""
    counts: dict[str, int] = {}
    sums: dict[str, NDArray[np.int64]] = {}
    for part in parts:
        for lang, (count, total) in part.items():
            for name in (lang, ""):
                counts[name] = counts.get(name, 0) + count
                sums[name] = sums[name] + total if name in sums else total
    return LanguageMeans(
        {
            name: (shards.from_fixed(total) / shards.VECTOR_SUM_SCALE / counts[name]).astype(np.float32)
            for name, total in sums.items()
            if counts[name] >= MIN_DOCUMENTS or not name
        }
    )
