"""Parallel corpora: files -> texts in groups that say the same in several languages.

What an encoder is trained and scored on. Rows are joined by a key (a sentence id, a page and command, ...) or
carry their translations in columns of their own. Everything is held in memory: this is for training sets of up to
some million sentences, not for the corpora that a run curates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator, model_validator

from compass_ray import records, storage
from compass_ray.configbase import Config
from compass_ray.errors import EmptyInput, SchemaError
from compass_ray.ingest.config import Format
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.formats import format_of
from compass_ray.ingest.paths import find
from compass_ray.ingest.readers import MISSING, read


class ParallelText(Config):
    """One text of a row, and where its language stands."""

    column: str
    lang: str | None = Field(default=None, description="The language of this column in all rows")
    lang_column: str | None = Field(default=None, description="The column that holds the language")

    @model_validator(mode="after")
    def _not_both(self) -> ParallelText:
        if self.lang and self.lang_column:
            raise ValueError("name lang or lang_column, not both")
        return self


class ParallelCorpus(Config):
    """One set of files whose rows translate one another."""

    path: str | list[str] = Field(description="Path or glob, or several, as of a source")
    format: Format = Field(default="auto", description="By file name unless given")
    key: list[str] = Field(min_length=1, description="Rows equal in these columns say the same")
    ignore_in_key: str | None = Field(default=None, description="Regular expression removed from the key's values")
    texts: list[ParallelText] = Field(min_length=1, description="The columns that hold text")
    lang_pattern: str | None = Field(
        default=None, description="Regular expression searched in the path; its group 'lang' is the language"
    )
    label: str | None = Field(default=None, description="Column with the topic, read for scoring only")
    weight: float = Field(default=1.0, gt=0, description="Share of a training batch, relative to the other corpora")
    license: str = Field(description="Goes into the model's card")
    url: str = Field(default="", description="Where the data come from; goes into the model's card")

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def wanted_columns(self) -> list[str]:
        names = [*self.key, *(text.column for text in self.texts), *(text.lang_column for text in self.texts)]
        return list(dict.fromkeys(name for name in [*names, self.label] if name))

    @field_validator("ignore_in_key", "lang_pattern")
    @classmethod
    def _regular_expression(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            groups = re.compile(value or "").groupindex
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        if info.field_name == "lang_pattern" and value is not None and "lang" not in groups:
            raise ValueError("needs a group named lang, as in '/(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/'")
        return value

    @model_validator(mode="after")
    def _every_text_has_a_language(self) -> ParallelCorpus:
        bare = [text.column for text in self.texts if not (text.lang or text.lang_column)]
        if bare and self.lang_pattern is None:
            raise ValueError(f"texts.{bare[0]}: name its lang or lang_column, or give lang_pattern")
        return self


def read_parallel(corpora: Mapping[str, ParallelCorpus]) -> pa.Table:
    """Read all groups of all corpora with texts in two languages or more.

    Parameters
    ----------
    corpora : mapping of name to ParallelCorpus

    Returns
    -------
    pyarrow.Table
        ``records.PARALLEL``, groups numbered in order of corpus, file and row: the same files give the same table.

    Raises
    ------
    EmptyInput
        If a corpus has no file, or no two rows share a key.
    SchemaError
        If a file cannot be read or lacks a column: training data are few and chosen, so nothing is skipped.
    """
    tables = []
    groups = 0
    for name, corpus in corpora.items():
        found: dict[tuple[str, ...], dict[tuple[str, str], str | None]] = {}
        for key, lang, text, label in _rows(name, corpus):
            found.setdefault(key, {}).setdefault((lang, text), label)
        kept = [texts for texts in found.values() if len({lang for lang, _ in texts}) > 1]
        if not kept:
            raise EmptyInput(
                f"corpora.{name}: no two of its {sum(map(len, found.values()))} texts share a key in two languages; "
                f"check key ({', '.join(corpus.key)}) and the languages"
            )
        rows = [
            (name, groups + number, lang, text, label)
            for number, texts in enumerate(kept)
            for (lang, text), label in texts.items()
        ]
        groups += len(kept)
        tables.append(pa.table([pa.array(column) for column in zip(*rows, strict=True)], names=records.PARALLEL.names))
    return pa.concat_tables([table.cast(records.PARALLEL) for table in tables])


def _rows(name: str, corpus: ParallelCorpus) -> Iterator[tuple[tuple[str, ...], str, str, str | None]]:
    ignored = re.compile(corpus.ignore_in_key) if corpus.ignore_in_key else None
    for url in _urls(name, corpus):
        shown = storage.public(url)
        stat = storage.stat(url)
        kind = format_of(f"corpora.{name}.format", corpus.format, url)
        unit = ReadUnit(name, InputFile(url, shown, stat.size, stat.version, kind, ""))
        match = re.search(corpus.lang_pattern, shown) if corpus.lang_pattern else None
        for batch in read(unit, corpus.wanted_columns):
            if batch.faults:
                fault = batch.faults[0]
                place = shown if fault.row is None else f"{shown}, row {fault.row}"
                raise SchemaError(f"corpora.{name}: {place}: {fault.reason}: {fault.message}")
            columns = {column: batch.values(column) for column in batch.columns}
            for index in range(len(batch.rows)):
                row = {column: values[index] for column, values in columns.items()}
                absent = [column for column, value in row.items() if value is MISSING]
                if absent:
                    place = f"{shown}, row {batch.rows[index]}"
                    raise SchemaError(f"corpora.{name}: {place}: missing_column: expected {', '.join(absent)}")
                key = tuple(_value(row[column], ignored) for column in corpus.key)
                topic = row[corpus.label] if corpus.label else None
                label = None if topic is None else str(topic)
                for text in corpus.texts:
                    lang = text.lang or (row[text.lang_column] if text.lang_column else match and match["lang"])
                    content = row[text.column]
                    if not isinstance(lang, str) or not lang.strip() or not isinstance(content, str):
                        raise SchemaError(
                            f"corpora.{name}: {shown}, row {batch.rows[index]}: expected a text in column "
                            f"{text.column} and its language, found {content!r:.60} and {lang!r:.60}"
                        )
                    if content.strip():
                        yield key, lang, content, label


def _value(value: Any, ignored: re.Pattern[str] | None) -> str:
    text = "" if value is None else str(value)
    return ignored.sub("", text) if ignored else text


def _urls(name: str, corpus: ParallelCorpus) -> list[str]:
    urls: dict[str, None] = {}
    for path in corpus.paths:
        found = find(path)
        if not found.files or found.kind == "folder":
            raise EmptyInput(
                f"corpora.{name}.path: no file matches {storage.public(path)}; check the path, the glob and the "
                "variables"
            )
        urls.update(dict.fromkeys(file.url for file in found.files))
    return list(urls)
