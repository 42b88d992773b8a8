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
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, storage
from compass_ray.ingest.config import EVALUATIONS, Decontamination, Role, SourceConfig, View
from compass_ray.ingest.contamination import Evaluations
from compass_ray.ingest.documents import to_documents
from compass_ray.ingest.evaluations import evaluation_ngrams
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.formats import FORMATS
from compass_ray.ingest.language import language_from_path, languages_of
from compass_ray.ingest.layouts import layouts
from compass_ray.ingest.listing import Listing, list_source
from compass_ray.ingest.readers import Limits, Unreadable, read
from compass_ray.ingest.readers.arrow import first_batch
from compass_ray.ingest.readers.delimited import count_records
from compass_ray.ingest.readers.fields import holders
from compass_ray.ingest.readers.parquet import read_footer
from compass_ray.ingest.readers.streams import chunks, decompressed
from compass_ray.ingest.shuffle import notes_of

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
    language_shares : mapping
        Share of the documents by language: as far as paths tell it of all files, else of the rows that were read.
    misfits : tuple of str
        Files that lack a column, or have it twice, of those whose schema was looked at, and what is wrong with them.
    lost_fraction : float
        Share of the rows that these files hold.
    target_lang : str or None
        The target language that all rows count for, where the config says it.
    dialects : mapping
        How the csv and tsv files that were looked at are read: see :func:`~compass_ray.ingest.layouts.layouts`.
    """

    source: str
    role: Role
    listing: Listing
    rows: int
    counted: bool
    sample: pa.Table
    row_seconds: float
    language_shares: Mapping[str, float]
    dialects: Mapping[str, Mapping[str, Any]]
    misfits: tuple[str, ...] = ()
    lost_fraction: float = 0.0
    target_lang: str | None = None

    @property
    def target_langs(self) -> list[str]:
        """The target languages whose rows these are, if they are of usage or current data."""
        return [self.target_lang] if self.target_lang else list(self.languages)

    @property
    def files(self) -> list[InputFile]:
        """All that will be read."""
        return self.listing.files

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
    def notes(self) -> dict[str, int]:
        """Sampled documents by what is noted of them."""
        return dict(sorted(Counter(note for _, said in notes_of(self.sample) for note in said).items()))

    @property
    def documents(self) -> int:
        """Documents expected of all rows, before duplicates are found."""
        rows = self.sample.num_rows - self.sample["row"].null_count  # a reject without a row stands for a file
        share = self.outcomes.get("document", 0) / max(1, rows)
        expected: int = round(share * (1 - self.lost_fraction) * self.rows)
        return expected

    @property
    def languages(self) -> dict[str, int]:
        """Documents expected by language, most first."""
        found = {lang: round(share * self.documents) for lang, share in self.language_shares.items()}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @property
    def said(self) -> list[str]:
        """What a user should know: files that are not read, files without the columns, rows that are no documents."""
        return [*self.listing.said, *self._misfits(), *self._refusals()]

    def _misfits(self) -> list[str]:
        if not self.misfits:
            return []
        first, *others = self.misfits
        more = (
            f"columns: {len(self.misfits)} files will be rejects, as" if others else "columns: 1 file will be a reject:"
        )
        return [f"{more} {first}"]

    def _refusals(self) -> list[str]:
        refused = {reason: count for reason, count in self.outcomes.items() if reason != "document"}
        if not refused:
            return []
        rejects = self.sample.filter(self.sample["reject"].is_valid())
        first = rejects.slice(0, 1).select(["uri", "row", "reject"]).to_pylist()[0]
        place = first["uri"] if first["row"] is None else f"{first['uri']}:{first['row']}"
        counts = ", ".join(f"{count:,} {reason}" for reason, count in refused.items())
        return [
            f"{sum(refused.values()):,} of {self.sample.num_rows:,} rows looked at are no documents ({counts}), as "
            f"{place}: {first['reject']['message']}"
        ]

    def first(self, count: int) -> pa.Table:
        """Take the first documents of the first file, as they will be ingested."""
        return records.documents_only(self.sample).slice(0, count)


@dataclass(frozen=True)
class EvaluationSurvey:
    """One evaluation: its files, and what :func:`evaluation_ngrams` counts in the first of them."""

    name: str
    listing: Listing
    counts: Mapping[str, int]
    ngrams: pa.Table

    @property
    def files(self) -> list[InputFile]:
        """All that will be read."""
        return self.listing.files


def survey_evaluations(config: Decontamination, limits: Limits) -> list[EvaluationSurvey]:
    """Look at all evaluations, in the order of their names.

    Raises
    ------
    EmptyInput, ConfigError, SchemaError
        If one matches no file, or its first file cannot be read.
    """
    found = []
    for name, evaluation in sorted(config.evaluations.items()):
        listing = list_source(name, evaluation, EVALUATIONS)
        marks = config.vowel_marks
        ngrams, counts = evaluation_ngrams(
            name, evaluation, listing.files[:1], config.lengths, limits, vowel_marks=marks
        )
        found.append(EvaluationSurvey(name, listing, counts, ngrams))
    return found


def survey(name: str, source: SourceConfig, view: View, evaluations: Evaluations | None = None) -> Survey:
    """Look at one source; pool rows that share a passage with the evaluations are refused.

    Raises
    ------
    EmptyInput, ConfigError
        If it matches no file, or a format cannot be told.
    """
    listing = list_source(name, source)
    files = listing.files
    looked = _soft_counts(files, FILES)
    tables = [_sample(name, source, file, view, evaluations) for file in _soft_counts(looked, _SAMPLED_FILES)]
    started = time.process_time()  # of a second reading, so that no import and no first call counts
    again = _sample(name, source, files[0], view, evaluations)
    seconds = (time.process_time() - started) / max(1, again.num_rows)
    counts = [_rows_of(file, source.wanted_columns) for file in looked]
    rows = sum(count for count, _ in counts)
    whole = len(looked) == len(files)
    total = rows if whole else rows / max(1, sum(file.size for file in looked)) * sum(file.size for file in files)
    counted = whole and all(_is_counted(file) for file in files)
    sample = pa.concat_tables(tables)
    misfits = [f"{file.uri}: {wrong}" for file, (_, wrong) in zip(looked, counts, strict=True) if wrong]
    lost = sum(count for count, wrong in counts if wrong) / max(1.0, rows)
    return Survey(
        source=name,
        role=source.role,
        listing=listing,
        rows=round(total),
        counted=counted,
        sample=sample,
        row_seconds=seconds,
        language_shares=_language_shares(source, files, sample),
        dialects=layouts(looked, source.wanted_columns),
        misfits=tuple(misfits),
        lost_fraction=lost,
        target_lang=source.target_lang,
    )


def survey_all(sources: Mapping[str, SourceConfig], view: View, evaluations: Evaluations | None = None) -> list[Survey]:
    """Look at all sources, in the order of the config."""
    return [survey(name, source, view, evaluations) for name, source in sources.items()]


def _soft_counts(files: Sequence[InputFile], count: int) -> list[InputFile]:
    """Pick so many files, evenly over all of them, the first among them."""
    step = max(1.0, len(files) / count)
    return [files[int(position * step)] for position in range(min(count, len(files)))]


def _sample(name: str, source: SourceConfig, file: InputFile, view: View, evaluations: Evaluations | None) -> pa.Table:
    """Read documents and rejects of the first batch of a file.

    Of one that can be entered anywhere, those of some ranges are read.
    """
    tables = [records.INGESTED.empty_table()]
    for start, end in _ranges(file) if file.in_ranges else [(0, None)]:
        for batch in read(ReadUnit(name, file, start, end), source.wanted_columns):
            rows = to_documents(batch, name, source, file.uri, view, 1, evaluations)
            tables.append(rows.select(records.INGESTED.names))
            if len(batch.rows):
                break
    return pa.concat_tables(tables)


def _ranges(file: InputFile) -> list[tuple[int, int]]:
    """Choose all of a small file, or ranges all over a large one. What was appended later may be of another kind."""
    if file.size <= _SAMPLE_BYTES:
        return [(0, file.size)]
    length = _SAMPLE_BYTES // _RANGES
    starts = [number * (file.size - length) // (_RANGES - 1) for number in range(_RANGES)]
    return [(start, start + length) for start in starts]


def _language_shares(source: SourceConfig, files: Sequence[InputFile], sample: pa.Table) -> dict[str, float]:
    """Compute the share of the documents by language.

    It is by the bytes of files where their paths tell it, else as in the sample.
    """
    weights: Counter[str] = Counter()
    if source.lang_pattern:
        codes = pa.array([language_from_path(source, file.uri) for file in files], pa.string())
        tags, _ = languages_of(codes, source.lang_map, source.lang_pattern)
        for file, lang in zip(files, tags.to_pylist(), strict=True):
            weights[lang] += file.weight
    else:
        weights.update(records.documents_only(sample)["lang"].to_pylist())
    weights.pop(None, 0)  # type: ignore[call-overload]
    return {lang: weight / weights.total() for lang, weight in weights.items() if weight}


def _rows_of(file: InputFile, columns: list[str]) -> tuple[float, str | None]:
    """Count the rows of one file.

    With them comes what is wrong with its columns, where its schema is known. Rows are counted by a footer, or by what
    a mebibyte of the file holds. What cannot be read is one reject.
    """
    if not FORMATS[file.format].packed_inside:
        return _rows_by_lines(file, columns), None
    with storage.open_input(file.url) as stream:
        try:
            if file.format == "parquet":
                footer = read_footer(stream)
                rows, schema = float(footer.num_rows), footer.schema.to_arrow_schema()
            else:
                batch = first_batch(stream)
                rows, schema = batch.num_rows / max(1, stream.tell()) * file.size, batch.schema
        except Unreadable:
            return 1.0, None
    try:
        holders(schema, columns)
    except Unreadable as exc:
        return rows, f"{exc.reason}: {exc.message}"
    return rows, None


def _rows_by_lines(file: InputFile, columns: list[str]) -> float:
    if FORMATS[file.format].one_row:
        return 1.0
    with storage.open_input(file.url) as stream:
        if file.in_ranges:
            return _lines_in(stream, _ranges(file), file.size)
        decoder = decompressed(stream, file, Limits())
        head = _head(decoder)
        at_end = len(head) < _SAMPLE_BYTES
        read_bytes = file.size if at_end else stream.tell() if file.compression else len(head)
    scale = file.size / max(1, read_bytes)
    if file.format == "json" and head.lstrip().startswith(b"["):
        return scale * max(1, len(_ELEMENT_ENDS.findall(head)))
    if FORMATS[file.format].delimited:
        return scale * count_records(head, at_end, file, columns)
    return scale * (head.count(b"\n") + (0 if head.endswith(b"\n") else 1))


def _lines_in(stream: BinaryIO, ranges: Sequence[tuple[int, int]], size: int) -> float:
    """Estimate the lines of a file of some size. It goes by those that begin in some ranges of it."""
    lines = looked = 0
    for start, end in ranges:
        stream.seek(start)
        piece = stream.read(end - start)
        lines += piece.count(b"\n") + (1 if end == size and piece and not piece.endswith(b"\n") else 0)
        looked += end - start
    return lines * size / max(1, looked)


def _head(stream: BinaryIO) -> bytes:
    """Read the first mebibyte, or what can be had of it. A damaged file is a reject of the run."""
    head = b""
    with contextlib.suppress(Unreadable):
        for piece in chunks(stream, _SAMPLE_BYTES):
            head = piece
            break
    return head


def _is_counted(file: InputFile) -> bool:
    """Tell whether ``_rows_of`` sees the whole file. What a compressed one holds beyond the head is not known."""
    return file.format == "parquet" or (file.size <= _SAMPLE_BYTES and not file.compression)
