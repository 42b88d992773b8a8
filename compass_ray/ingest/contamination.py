"""Pool rows that share a passage with an evaluation set, whose scores they would inflate.

An n-gram in common is enough, as in GPT-3 (Brown et al., 2020, appendix C, 13 words) and the EleutherAI harness (Gao
et al., 2021). GPT-3 lets n follow the length of a data set's examples, from 8 to 13 words; here it is fixed and short
texts are compared whole. PaLM (Chowdhery et al., 2022, 8 words) asks for 70 % of an example's n-grams, to spare common
phrases; a pool is large and a row is cheap, so one suffices.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray.ingest.ngrams import Lengths, ngram_hashes
from compass_ray.words import Hashes

_MESSAGE = re.compile(r"shares a passage with (?P<file>.+) row \d+", re.DOTALL)

NGRAMS = pa.schema(
    [
        ("hash", pa.uint64()),  # ascending, each once
        ("uri", pa.string()),  # the evaluation file, relative to its root
        ("row", pa.int64()),
    ]
)
"""The n-grams of an evaluation, and the first row that each is in."""


@dataclass(frozen=True)
class Evaluations:
    """The n-grams of all evaluations, sorted, and where each is from. Arrays, so workers share one copy."""

    hashes: Hashes
    sources: NDArray[np.int32]  # index into files
    rows: NDArray[np.int64]
    files: tuple[str, ...]  # evaluation:uri
    lengths: Lengths
    vowel_marks: bool = False

    def find(self, texts: Sequence[str]) -> dict[int, str]:
        """Find the texts that share an n-gram with an evaluation.

        Each comes with a message that names the evaluation's file and row. Of several, the first by evaluation, file
        and row is named. Cost: that of :func:`~compass_ray.ingest.ngrams.ngram_hashes` and a binary search per n-gram.
        """
        hashes, target_langs = ngram_hashes(texts, self.lengths, vowel_marks=self.vowel_marks)
        if not len(self.hashes):
            return {}
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        hit = self.hashes[at] == hashes
        at, target_langs = at[hit], target_langs[hit]
        order = np.lexsort((self.rows[at], self.sources[at], target_langs))
        found, first = np.unique(target_langs[order], return_index=True)
        places = at[order][first]
        return {
            text: f"shares a passage with {self.files[source]} row {row}"
            for text, source, row in zip(
                found.tolist(), self.sources[places].tolist(), self.rows[places].tolist(), strict=True
            )
        }


def merged(tables: dict[str, pa.Table], lengths: Lengths, *, vowel_marks: bool = False) -> Evaluations:
    """Merge the n-grams of all evaluations, each with the first of its places.

    Parameters
    ----------
    tables : dict of Table
        By evaluation, schema ``NGRAMS``.
    lengths, vowel_marks
        What these were made with.
    """
    names = pa.chunked_array([_named(name, tables[name]["uri"]) for name in sorted(tables)], pa.string())
    files = names.unique().sort()
    sources = pc.index_in(names, files).to_numpy()
    hashes = np.concatenate([tables[name]["hash"].to_numpy() for name in sorted(tables)])
    rows = np.concatenate([tables[name]["row"].to_numpy() for name in sorted(tables)])
    hashes, first = np.unique(hashes, return_index=True)
    return Evaluations(hashes, sources[first], rows[first], tuple(files.to_pylist()), lengths, vowel_marks)


def _named(name: str, uris: pa.ChunkedArray) -> pa.Array:
    return pc.binary_join_element_wise(f"{name}:", uris.cast(pa.string()), "").combine_chunks()


def contaminated_by_file(messages: Iterable[str]) -> list[tuple[str, int]]:
    """Count the rows that each evaluation file accounts for.

    The count is taken from what :meth:`Evaluations.find` says of them; the files are sorted.
    """
    found = (_MESSAGE.fullmatch(message) for message in messages)
    return sorted(Counter(match["file"] for match in found if match).items())
