"""What a source may say, and what it is told when it says something else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compass_ray.configbase import identity
from compass_ray.ingest.config import Columns, Dialect, IngestConfig, SourceConfig

GOOD: dict[str, Any] = {"role": "pool", "path": "x/*.jsonl", "lang": "en"}


def source(**changes: Any) -> SourceConfig:
    return SourceConfig(**{name: value for name, value in {**GOOD, **changes}.items() if value is not None})


def test_the_least_a_source_needs_reads_a_text_column() -> None:
    config = source()
    assert (config.paths, config.format, config.columns.text) == (["x/*.jsonl"], "auto", "text")
    assert config.wanted_columns == ["text"]


def test_several_paths_stay_in_order() -> None:
    assert source(path=["b", "a"]).paths == ["b", "a"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "extra"}, "Input should be 'pool', 'current' or 'usage'"),
        ({"lang_map": {"x": "xx-unknown"}}, "'xx-unknown' is no known language"),
        ({"format": "xlsx"}, "Input should be 'auto', 'jsonl', 'json', 'parquet'"),
        ({"min_characters": 9, "max_characters": 8}, "max_characters 8 is below min_characters 9"),
        ({"role": "usage", "target_lang": "detect"}, "'detect' is no known language"),
        ({"lang": "klingonese"}, "'klingonese' is no known language"),
        ({"lang": "und"}, "'und' is no known language"),
        ({"role": "usage", "target_lang": "xx-yy-zz"}, "'xx-yy-zz' is no known language"),
        ({"target_lang": "de"}, "pool rows belong to no target language; remove 'target_lang'"),
        ({"lang": None}, "name exactly one of columns.lang, lang or lang_pattern; found none"),
        ({"columns": {"text": "t", "lang": "l"}}, "found ['lang', 'columns.lang']"),
        ({"lang_pattern": "(?P<lang>..)"}, "found ['lang', 'lang_pattern']"),
        ({"lang": None, "lang_pattern": "(..)"}, "needs a group named lang, as in '/(?P<lang>[a-z]{2})/'"),
        ({"lang": None, "lang_pattern": "(?P<lang>"}, "not a regular expression: missing )"),
        ({"pth": "x"}, "Extra inputs are not permitted"),
        ({"path": None}, "Field required"),
        (
            {"delimiter": "||"},
            "expected one ASCII character (in quotes: '|') or auto, found '||'; a tab is written tab",
        ),
        ({"delimiter": ""}, "expected one ASCII character (in quotes: '|') or auto, found ''"),
        ({"delimiter": "none"}, "expected one ASCII character (in quotes: '|') or auto, found 'none'"),
        ({"delimiter": "¦"}, "expected one ASCII character (in quotes: '|') or auto, found '¦'"),
        ({"quote": "\n"}, "expected one ASCII character (in quotes: '|') or auto or none, found '\\n'"),
        ({"quote": False}, "expected one ASCII character (in quotes: '|') or auto or none, found False"),
        ({"quote": "'", "escape": "'"}, "quote and escape cannot be one character; a doubled quote stands for a quote"),
        ({"delimiter": "'", "quote": "'"}, "delimiter and quote cannot be one character"),
        ({"format": "jsonl", "delimiter": ";"}, "delimiter: csv and tsv have one, and format is jsonl; remove it"),
        ({"format": "lines", "header": False}, "header: csv and tsv have one, and format is lines; remove it"),
        ({"header": False}, "without a header columns are called column_1, column_2, ...; found text"),
        (
            {"header": False, "columns": {"text": "{column_1} {column_0}"}},
            "without a header columns are called column_1, column_2, ...; found column_0",
        ),
    ],
)
def test_what_a_source_may_not_say(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        source(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "dialect"),
    [
        ({}, Dialect("auto", "auto", "auto", True)),
        ({"delimiter": "tab", "quote": "none"}, Dialect("\t", "none", "auto", True)),
        ({"delimiter": "\\t", "escape": "\\"}, Dialect("\t", "auto", "\\", True)),
        ({"quote": "'", "escape": "none", "header": True}, Dialect("auto", "'", "none", True)),
    ],
)
def test_a_dialect_is_said_by_characters_and_words(given: dict[str, Any], dialect: Dialect) -> None:
    config = source(**given)
    assert config.dialect == dialect
    assert SourceConfig(**config.model_dump()) == config


@pytest.mark.parametrize("header", [None, "none", False])
def test_null_and_none_say_that_there_is_none(header: object) -> None:
    config = SourceConfig(**GOOD, quote=None, escape=None, header=header, columns={"text": "column_1"})
    assert config.dialect == Dialect("auto", "none", "none", False)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "name exactly one of text, prompt or messages (prompt may have a completion); found none"),
        ({"text": "a", "messages": "m"}, "found text and messages"),
        ({"text": "a", "prompt": "p"}, "found text and prompt"),
        ({"text": "a", "completion": "c"}, "completion needs prompt beside it"),
        ({"messages": "m", "completion": "c"}, "completion needs prompt beside it"),
    ],
)
def test_the_content_of_a_row_is_of_one_kind(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Columns(**columns)
    assert message in str(caught.value)


def test_all_columns_are_wanted_once_those_of_where_included() -> None:
    config = source(
        lang=None, columns={"prompt": "q", "completion": "a", "lang": "l"}, where={"l": "en", "split": "dev"}
    )
    assert config.wanted_columns == ["q", "a", "l", "split"]


def test_languages_are_canonical_in_the_config() -> None:
    config = source(role="usage", lang="zho_Hans", target_lang="deu")
    assert (config.lang, config.target_lang) == ("zh", "de")


def test_where_takes_one_value_or_several() -> None:
    assert source(where={"a": "x", "b": ["y", "z"]}).where == {"a": ["x"], "b": ["y", "z"]}


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        source().lang = "de"  # type: ignore[misc]


def test_where_files_are_is_not_identity_but_what_is_read_of_them_is() -> None:
    assert identity(source(path="here")) == identity(source(path=["there"]))
    for changes in (
        {"lang": "de"},
        {"exclude": ["x"]},
        {"where": {"a": "b"}},
        {"columns": {"text": "t"}},
        {"role": "current"},
    ):
        assert identity(source(**changes)) != identity(source())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shard_bytes": 1023}, "greater than or equal to 1024"),
        ({"range_bytes": 0}, "greater than or equal to 1024"),
        ({"max_bad_fraction": 1.1}, "less than or equal to 1"),
        ({"max_bad_fraction": -0.1}, "greater than or equal to 0"),
    ],
)
def test_ingest_limits_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IngestConfig(**given)


def test_the_split_among_tasks_is_not_identity_and_the_shard_size_is() -> None:
    assert identity(IngestConfig(range_bytes=1 << 11)) == identity(IngestConfig())
    assert identity(IngestConfig(shard_bytes=1 << 11)) != identity(IngestConfig())
