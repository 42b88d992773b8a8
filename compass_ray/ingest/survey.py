"""What sources hold, from Parquet footers and the beginnings of some files: the ingest part of a dry run.

Nothing is written. Cost: at most 16 files of a source are opened, about a mebibyte of each is read (of plain line files
in ranges all over them), and the rows of four of them are made into documents. Of an evaluation the first file is read.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, storage
from compass_ray.ingest.config import Decontamination, SourceConfig, View
from compass_ray.ingest.contamination import Evaluations
from compass_ray.ingest.documents import to_documents
from compass_ray.ingest.evaluations import evaluation_ngrams
from compass_ray.ingest.files import InputFile, ReadUnit, list_source
from compass_ray.ingest.readers import Limits, Unreadable, read
from compass_ray.ingest.readers.arrow import rows_at_the_beginning
from compass_ray.ingest.readers.parquet import read_footer
from compass_ray.ingest.readers.streams import chunks, decompressed

FILES = 16
_SAMPLED_FILES = 4
_SAMPLE_BYTES = 1 << 20
_RANGES = 8
_ELEMENT_ENDS = re.compile(rb"\}\s*[,\]]\s*(?=\{|$)")


@dataclass(frozen=True)
class Survey:
    """One source as far as it was looked at.

    Attributes
    ----------
    rows : int
        In all files; exact if ``counted``, otherwise from the length of the rows that were read.
    sample : Table of schema INGESTED
        Documents and rejects of the rows that were read.
    row_seconds : float
        CPU time of making a document of one row, on this machine.
    """

    source: str
    files: tuple[InputFile, ...]
    rows: int
    counted: bool
    sample: pa.Table
    row_seconds: float

    @property
    def weight(self) -> int:
        """Bytes of all files after decompression, as shards are sized by."""
        return sum(file.weight for file in self.files)

    @property
    def outcomes(self) -> dict[str, int]:
        """Sampled rows by what becomes of them: ``document``, or the reason of the reject."""
        reasons = pc.struct_field(self.sample["reject"].combine_chunks(), "reason")
        outcome = pc.if_else(self.sample["reject"].is_null().combine_chunks(), "document", reasons)
        return dict(sorted(Counter(outcome.to_pylist()).items()))

    @property
    def documents(self) -> int:
        """Documents expected of all rows, before duplicates are found."""
        share = self.outcomes.get("document", 0) / max(1, self.sample.num_rows)
        expected: int = round(share * self.rows)
        return expected

    def first(self, count: int) -> pa.Table:
        """The first documents of the first file, as they will be ingested."""
        return records.documents_only(self.sample).slice(0, count)


@dataclass(frozen=True)
class EvaluationSurvey:
    """One evaluation: its files, and how many ``texts``, ``too_short`` ones and ``ngrams`` the first of them has."""

    name: str
    files: tuple[InputFile, ...]
    counts: Mapping[str, int]
    ngrams: pa.Table


def survey_evaluations(config: Decontamination, limits: Limits) -> list[EvaluationSurvey]:
    """Look at all evaluations, in the order of their names.

    Raises
    ------
    EmptyInput, ConfigError, SchemaError
        If one matches no file, or its first file cannot be read.
    """
    found = []
    for name, evaluation in sorted(config.evaluations.items()):
        files = list_source(name, evaluation, "ingest.decontaminate.evaluations")
        marks = config.vowel_marks
        ngrams, counts = evaluation_ngrams(name, evaluation, files[:1], config.lengths, limits, vowel_marks=marks)
        found.append(EvaluationSurvey(name, tuple(files), counts, ngrams))
    return found


def survey(name: str, source: SourceConfig, view: View, evaluations: Evaluations | None = None) -> Survey:
    """Look at one source; pool rows that share a passage with the evaluations are refused.

    Raises
    ------
    EmptyInput, ConfigError
        If it matches no file, or a format cannot be told.
    """
    files = list_source(name, source)
    looked = _spread(files, FILES)
    tables = [_sample(name, source, file, view, evaluations) for file in _spread(looked, _SAMPLED_FILES)]
    started = time.process_time()  # of a second reading, so that no import and no first call counts
    again = _sample(name, source, files[0], view, evaluations)
    seconds = (time.process_time() - started) / max(1, again.num_rows)
    rows, bytes_seen = 0.0, 0
    for file in looked:
        rows += _rows_of(file)
        bytes_seen += file.size
    whole = len(looked) == len(files)
    total = rows if whole else rows / max(1, bytes_seen) * sum(file.size for file in files)
    counted = whole and all(_is_counted(file) for file in files)
    return Survey(name, tuple(files), round(total), counted, pa.concat_tables(tables), seconds)


def survey_all(sources: Mapping[str, SourceConfig], view: View, evaluations: Evaluations | None = None) -> list[Survey]:
    """Look at all sources, in the order of the config."""
    return [survey(name, source, view, evaluations) for name, source in sources.items()]


def _spread(files: Sequence[InputFile], count: int) -> list[InputFile]:
    """So many files, evenly over all of them, the first among them."""
    step = max(1.0, len(files) / count)
    return [files[int(position * step)] for position in range(min(count, len(files)))]


def _sample(name: str, source: SourceConfig, file: InputFile, view: View, evaluations: Evaluations | None) -> pa.Table:
    """Documents and rejects of the first batch of a file, or of some ranges of one that can be entered anywhere."""
    tables = [records.INGESTED.empty_table()]
    for start, end in _ranges(file) if file.in_ranges else [(0, None)]:
        for batch in read(ReadUnit(name, file, start, end), source.wanted_columns):
            rows = to_documents(batch, name, source, file.uri, view, 1, evaluations)
            tables.append(rows.select(records.INGESTED.names))
            if len(batch.rows):
                break
    return pa.concat_tables(tables)


def _ranges(file: InputFile) -> list[tuple[int, int]]:
    """The whole of a small file, or ranges all over a large one: what was appended later may be of another kind."""
    if file.size <= _SAMPLE_BYTES:
        return [(0, file.size)]
    length = _SAMPLE_BYTES // _RANGES
    starts = [number * (file.size - length) // (_RANGES - 1) for number in range(_RANGES)]
    return [(start, start + length) for start in starts]


def _rows_of(file: InputFile) -> float:
    """Rows of one file: by its footer, or by what a mebibyte of it holds. What cannot be read is one reject."""
    if file.format in ("text", "markdown"):
        return 1.0
    with storage.open_input(file.url) as stream:
        try:
            if file.format == "parquet":
                return float(read_footer(stream).num_rows)
            if file.format == "arrow":
                return rows_at_the_beginning(stream) / max(1, stream.tell()) * file.size
        except Unreadable:
            return 1.0
        if file.in_ranges:
            return _lines_in(stream, _ranges(file), file.size)
        decoder = decompressed(stream, file, Limits())
        head = _head(decoder)
        at_end = len(head) < _SAMPLE_BYTES
        read_bytes = file.size if at_end else stream.tell() if file.compression else len(head)
    scale = file.size / max(1, read_bytes)
    if file.format == "json" and head.lstrip().startswith(b"["):
        return scale * max(1, len(_ELEMENT_ENDS.findall(head)))
    lines = head.count(b"\n") + (0 if head.endswith(b"\n") else 1)
    header = 1 if file.format in ("csv", "tsv") else 0
    return max(0.0, lines * scale - header)


def _lines_in(stream: BinaryIO, ranges: Sequence[tuple[int, int]], size: int) -> float:
    """Lines of a file of some size, by those that begin in some ranges of it."""
    lines = looked = 0
    for start, end in ranges:
        stream.seek(start)
        piece = stream.read(end - start)
        lines += piece.count(b"\n") + (1 if end == size and piece and not piece.endswith(b"\n") else 0)
        looked += end - start
    return lines * size / max(1, looked)


def _head(stream: BinaryIO) -> bytes:
    """The first mebibyte, or what can be had of it: a damaged file is a reject of the run."""
    head = b""
    with contextlib.suppress(Unreadable):
        for piece in chunks(stream, _SAMPLE_BYTES):
            head = piece
            break
    return head


def _is_counted(file: InputFile) -> bool:
    """Whether ``_rows_of`` sees the whole file; what a compressed one holds beyond the head is not known."""
    return file.format == "parquet" or (file.size <= _SAMPLE_BYTES and not file.compression)
