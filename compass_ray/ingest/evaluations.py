"""Evaluation files -> n-grams: what pool rows are compared with, see :mod:`compass_ray.ingest.contamination`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from compass_ray.errors import SchemaError
from compass_ray.ingest.config import EVALUATIONS, FilesConfig, Limits
from compass_ray.ingest.contamination import NGRAMS
from compass_ray.ingest.content import RowRejects, content_of
from compass_ray.ingest.documents import FILTERS, select_rows
from compass_ray.ingest.files import InputFile, ReadUnit, check_unchanged
from compass_ray.ingest.ngrams import Lengths, ngram_hashes
from compass_ray.ingest.readers import Fault, read


def evaluation_ngrams(
    name: str,
    evaluation: FilesConfig,
    files: Iterable[InputFile],
    lengths: Lengths,
    limits: Limits,
    *,
    vowel_marks: bool = False,
) -> tuple[pa.Table, dict[str, int]]:
    """Compute the n-grams of one evaluation.

    Parameters
    ----------
    name : str
        For errors.
    lengths : Lengths
        Of n-grams.
    vowel_marks : bool, optional
        As for :func:`~compass_ray.ingest.ngrams.ngram_hashes`.

    Returns
    -------
    Table of schema ``NGRAMS``
    counts : dict
        ``texts`` that were read, those ``too_short`` to be compared, rows that are ``blank``, and ``ngrams``. An
        evaluation is held in memory: 20 bytes an n-gram, and as much again while they are sorted.

    Raises
    ------
    SchemaError
        If a row cannot be read: an evaluation that is known in part protects in part.
    """
    hashes, sources, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    uris: list[str] = []
    texts = too_short = blank = 0
    for file in files:
        uris.append(file.uri)
        for batch in read(ReadUnit(name, file), evaluation.wanted_columns, limits):
            kept, faults = select_rows(batch, evaluation.where)
            verdicts = RowRejects()
            found: list[str] = []
            if len(kept.rows):
                found = content_of(kept, evaluation.columns, "full", verdicts).whole()
            faults = [*faults, *(Fault(kept.rows[row], *verdict) for row, verdict in verdicts.items())]
            _refuse_faults(name, file, faults)
            compared = [row for row in range(len(kept.rows)) if row not in verdicts]
            grams, target_langs = ngram_hashes([found[row] for row in compared], lengths, vowel_marks=vowel_marks)
            texts += len(compared)
            blank += len(kept.rows) - len(compared)
            too_short += len(compared) - len(np.unique(target_langs))
            hashes.append(grams)
            sources.append(np.full(len(grams), len(uris) - 1, np.int32))
            rows.append(np.asarray(kept.rows, dtype=np.int64)[np.asarray(compared, dtype=np.intp)][target_langs])
        check_unchanged(file)
    row, source = np.concatenate(rows), np.concatenate(sources)
    order = np.lexsort((row, source))
    unique, first = np.unique(np.concatenate(hashes)[order], return_index=True)
    first = order[first]
    columns = [pa.array(unique), pa.array(uris, pa.string()).take(pa.array(source[first])), pa.array(row[first])]
    counts = {"texts": texts, "too_short": too_short, "blank": blank, "ngrams": len(unique)}
    return pa.table(columns, schema=NGRAMS), counts


def _refuse_faults(name: str, file: InputFile, faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.reason not in FILTERS:
            place = file.url if fault.row is None else f"{file.url}, row {fault.row}"
            raise SchemaError(f"{EVALUATIONS}.{name}: {place}: {fault.reason}: {fault.message}")
