"""Parallel corpora: rows that share a key translate one another, and nothing is skipped without a word."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from compass_ray import records
from compass_ray.errors import CompassError, ConfigError, EmptyInput, SchemaError
from compass_ray.ingest.parallel import ParallelCorpus, ParallelText, read_parallel

BY_FOLDER = "/(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/"
GOOD: dict[str, Any] = {"path": "x/*.tsv", "key": ["id"], "texts": [{"column": "text", "lang": "en"}], "license": "CC0"}

Group = dict[str, list[str]]


def corpus(**changes: Any) -> ParallelCorpus:
    return ParallelCorpus(**{name: value for name, value in {**GOOD, **changes}.items() if value is not None})


def by_folder(root: Path, **changes: Any) -> ParallelCorpus:
    """Files below folders of languages, with columns id and text."""
    return corpus(**{"path": f"{root}/*/*", "texts": [{"column": "text"}], "lang_pattern": BY_FOLDER, **changes})


def by_column(root: Path, **changes: Any) -> ParallelCorpus:
    """Files with columns id, text and lang."""
    return corpus(**{"path": f"{root}/*", "texts": [{"column": "text", "lang_column": "lang"}], **changes})


def write(path: Path, *rows: dict[str, Any]) -> Path:
    """The rows in the format that the name tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if ".tsv" in path.name:
        lines = ["\t".join(map(str, values)) for values in [list(rows[0]), *(row.values() for row in rows)]]
    else:
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(*corpora: ParallelCorpus) -> pa.Table:
    return read_parallel({f"c{number}": one for number, one in enumerate(corpora)})


def groups_of(table: pa.Table) -> list[Group]:
    """Texts by language of each group, in the order of the table."""
    found: dict[int, Group] = {}
    for row in table.to_pylist():
        found.setdefault(row["group"], {}).setdefault(row["lang"], []).append(row["text"])
    return list(found.values())


# --- what is joined -----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_rows_of_several_files_that_share_a_key_are_one_group(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"eng_Latn/dev.{ending}", {"id": 1, "text": "dog"}, {"id": 2, "text": "cat"})
    write(tmp_path / f"swh_Latn/dev.{ending}", {"id": 2, "text": "paka"}, {"id": 1, "text": "mbwa"})
    table = read(by_folder(tmp_path))
    assert table.schema == records.PARALLEL
    assert table.to_pylist() == [
        {"corpus": "c0", "group": 0, "lang": "eng_Latn", "text": "dog", "label": None},
        {"corpus": "c0", "group": 0, "lang": "swh_Latn", "text": "mbwa", "label": None},
        {"corpus": "c0", "group": 1, "lang": "eng_Latn", "text": "cat", "label": None},
        {"corpus": "c0", "group": 1, "lang": "swh_Latn", "text": "paka", "label": None},
    ]


def test_a_number_in_one_format_is_the_same_key_as_its_digits_in_another(tmp_path: Path) -> None:
    write(tmp_path / "eng_Latn/a.jsonl", {"id": 7, "text": "dog"})
    write(tmp_path / "swh_Latn/a.tsv", {"id": "7", "text": "mbwa"})
    assert groups_of(read(by_folder(tmp_path))) == [{"eng_Latn": ["dog"], "swh_Latn": ["mbwa"]}]


def test_a_format_that_the_name_does_not_tell_can_be_given(tmp_path: Path) -> None:
    for lang, text in (("eng_Latn", "dog"), ("swh_Latn", "mbwa")):
        write(tmp_path / f"{lang}/a.tsv", {"id": 1, "text": text}).rename(tmp_path / f"{lang}/devtest")
    assert len(read(by_folder(tmp_path, format="tsv"))) == 2
    with pytest.raises(ConfigError) as caught:
        read(by_folder(tmp_path))
    assert str(caught.value) == (
        f"corpora.c0.format: cannot tell the format of {tmp_path}/eng_Latn/devtest from its name; expected .jsonl, "
        ".ndjson, .jsonlines, .jl, .json, .parquet, .pq, .arrow, .feather, .csv, .tsv, .md, .markdown (.gz, .gzip, "
        ".bz2, .xz, .zst, .zstd, .lz4 or not), or set corpora.c0.format"
    )


def test_all_columns_of_the_key_must_agree(tmp_path: Path) -> None:
    rows = [("tar", "1", "eng", "extract"), ("tar", "1", "deu", "entpacken"), ("tar", "2", "fra", "lister")]
    rows += [("zip", "1", "spa", "comprimir"), ("zip", "2", "fra", "ajouter"), ("zip", "2", "deu", "anfügen")]
    write(
        tmp_path / "pages.jsonl",
        *({"page": page, "command": command, "lang": lang, "text": text} for page, command, lang, text in rows),
    )
    assert groups_of(read(by_column(tmp_path, key=["page", "command"]))) == [
        {"eng": ["extract"], "deu": ["entpacken"]},
        {"fra": ["ajouter"], "deu": ["anfügen"]},
    ]
    assert len(groups_of(read(by_column(tmp_path, key=["page"])))) == 2


def test_columns_of_one_row_translate_each_other_in_languages_given_or_found_beside_them(tmp_path: Path) -> None:
    write(
        tmp_path / "pairs.tsv",
        {"id": 1, "english": "dog", "other": "mbwa", "code": "sw"},
        {"id": 2, "english": "cat", "other": "Katze", "code": "de"},
    )
    texts = [{"column": "english", "lang": "en"}, {"column": "other", "lang_column": "code"}]
    assert groups_of(read(corpus(path=f"{tmp_path}/*", texts=texts))) == [
        {"en": ["dog"], "sw": ["mbwa"]},
        {"en": ["cat"], "de": ["Katze"]},
    ]


def test_the_language_of_a_column_goes_before_that_of_the_path(tmp_path: Path) -> None:
    write(tmp_path / "swh_Latn/a.tsv", {"id": 1, "source": "dog", "text": "mbwa"})
    texts = [{"column": "source", "lang": "en"}, {"column": "text"}]
    assert groups_of(read(by_folder(tmp_path, texts=texts))) == [{"en": ["dog"], "swh_Latn": ["mbwa"]}]


@pytest.mark.parametrize(("ignored", "joined"), [(None, False), ("[{}]", True), (r"\W", True), ("x", False)])
def test_what_ignore_in_key_matches_is_taken_out_of_the_key(tmp_path: Path, ignored: str | None, joined: bool) -> None:
    write(tmp_path / "eng_Latn/a.tsv", {"id": "tar {file}", "text": "list"}, {"id": "same", "text": "yes"})
    write(tmp_path / "deu_Latn/a.tsv", {"id": "tar file", "text": "auflisten"}, {"id": "same", "text": "ja"})
    found = groups_of(read(by_folder(tmp_path, ignore_in_key=ignored)))
    assert {"deu_Latn": ["ja"], "eng_Latn": ["yes"]} in found
    assert ({"deu_Latn": ["auflisten"], "eng_Latn": ["list"]} in found) == joined


def test_groups_of_one_language_are_dropped_and_the_others_numbered_without_holes(tmp_path: Path) -> None:
    write(tmp_path / "eng_Latn/a.tsv", *({"id": i, "text": f"e{i}"} for i in (1, 2, 3, 4)))
    write(tmp_path / "swh_Latn/a.tsv", *({"id": i, "text": f"s{i}"} for i in (4, 2, 5)))
    write(tmp_path / "swh_Latn/b.tsv", {"id": 5, "text": "another s5"})
    table = read(by_folder(tmp_path))
    assert groups_of(table) == [{"eng_Latn": ["e2"], "swh_Latn": ["s2"]}, {"eng_Latn": ["e4"], "swh_Latn": ["s4"]}]
    assert table["group"].to_pylist() == [0, 0, 1, 1]


def test_the_same_text_twice_in_one_language_is_kept_once_and_another_text_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *({"id": 1, "lang": "en", "text": text} for text in ("dog", "hound", "dog")))
    write(tmp_path / "b.jsonl", {"id": 1, "lang": "en", "text": "dog"}, {"id": 1, "lang": "nl", "text": "dog"})
    assert groups_of(read(by_column(tmp_path))) == [{"en": ["dog", "hound"], "nl": ["dog"]}]


@pytest.mark.parametrize("blank", ["", " ", "\u2003"])
def test_empty_texts_are_skipped_and_do_not_make_a_language_of_their_group(tmp_path: Path, blank: str) -> None:
    write(tmp_path / "eng_Latn/a.tsv", {"id": 1, "text": "dog"}, {"id": 2, "text": "cat"})
    write(tmp_path / "swh_Latn/a.tsv", {"id": 1, "text": blank}, {"id": 2, "text": "paka"})
    assert groups_of(read(by_folder(tmp_path))) == [{"eng_Latn": ["cat"], "swh_Latn": ["paka"]}]


def test_labels_are_carried_as_text_and_are_null_where_the_row_has_a_null(tmp_path: Path) -> None:
    labels = ["sport", 3, None]
    for lang in ("en", "sw"):
        rows = ({"id": i, "lang": lang, "text": f"{lang}{i}", "topic": label} for i, label in enumerate(labels))
        write(tmp_path / f"{lang}.jsonl", *rows)
    table = read(by_column(tmp_path, label="topic"))
    assert table["label"].to_pylist() == ["sport", "sport", "3", "3", None, None]
    assert read(by_column(tmp_path))["label"].null_count == 6


# --- order --------------------------------------------------------------------------------------


def test_corpora_do_not_share_groups_and_numbers_go_on_from_one_to_the_next(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for lang in ("en", "sw"):
            write(tmp_path / f"{name}/{lang}.jsonl", *({"id": i, "lang": lang, "text": name + lang} for i in (0, 1)))
    table = read(by_column(tmp_path / "b"), by_column(tmp_path / "a"))
    assert table["corpus"].to_pylist() == ["c0"] * 4 + ["c1"] * 4
    assert table["group"].to_pylist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert table["text"].to_pylist() == ["ben", "bsw"] * 2 + ["aen", "asw"] * 2


def test_the_same_files_give_the_same_table_whatever_order_they_were_made_in(tmp_path: Path) -> None:
    langs = ["swh_Latn", "eng_Latn", "deu_Latn", "amh_Ethi"]
    for root, order in (("one", langs), ("other", langs[::-1])):
        for lang in order:
            write(tmp_path / root / f"{lang}/a.tsv", *({"id": i, "text": f"{lang} {i}"} for i in (5, 3, 9)))
    one, other = (read(by_folder(tmp_path / root)) for root in ("one", "other"))
    assert one.equals(other)
    assert one["group"].to_pylist() == sorted(one["group"].to_pylist())
    assert list(groups_of(one)[0]) == sorted(langs)


def test_a_file_that_several_paths_name_is_read_once(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/b.jsonl", f"{tmp_path}/*.jsonl"]
    for lang in ("a", "b"):
        write(tmp_path / f"{lang}.jsonl", {"id": 1, "lang": lang, "text": lang})
    assert groups_of(read(by_column(tmp_path, path=paths))) == [{"b": ["b"], "a": ["a"]}]


# --- errors -------------------------------------------------------------------------------------


def failing(error: type[CompassError], config: ParallelCorpus) -> str:
    with pytest.raises(error) as caught:
        read_parallel({"books": config})
    return str(caught.value)


def test_a_path_without_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"id": 1, "lang": "en", "text": "dog"})
    message = failing(EmptyInput, by_column(tmp_path, path=[f"{tmp_path}/*.jsonl", f"{tmp_path}/*.tsv"]))
    assert message == (
        f"corpora.books.path: no file matches {tmp_path}/*.tsv; check the path, the glob and the variables"
    )


def test_a_corpus_in_which_nothing_shares_a_key_in_two_languages_is_an_error_that_counts_its_texts(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.jsonl", *({"id": 1, "lang": "en", "text": text} for text in ("dog", "hound")))
    write(tmp_path / "b.jsonl", {"id": "1 ", "lang": "sw", "text": "mbwa"})
    assert failing(EmptyInput, by_column(tmp_path, key=["id", "id"])) == (
        "corpora.books: no two of its 3 texts share a key in two languages; check key (id, id) and the languages"
    )


@pytest.mark.parametrize("changes", [{"key": ["nr"]}, {"label": "nr"}, {"texts": [{"column": "nr", "lang": "en"}]}])
def test_a_file_without_a_column_is_an_error_that_lists_those_it_has(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "a.tsv", {"id": 1, "lang": "en", "text": "dog"})
    assert failing(SchemaError, by_column(tmp_path, **changes)) == (
        f"corpora.books: {path}: missing_column: expected nr; the file has id, lang, text"
    )


@pytest.mark.parametrize("column", ["id", "lang", "text", "topic"])
def test_a_json_row_without_a_field_is_an_error_that_names_row_and_field(tmp_path: Path, column: str) -> None:
    whole = {"id": 1, "lang": "en", "text": "dog", "topic": "pets"}
    path = write(tmp_path / "a.jsonl", whole, {name: value for name, value in whole.items() if name != column})
    start = len(path.read_bytes().splitlines(keepends=True)[0])
    assert failing(SchemaError, by_column(tmp_path, label="topic")) == (
        f"corpora.books: {path}, row {start}: missing_column: expected {column}"
    )


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b'{"id": 1, "lang": "en", "text": "dog"}\n["id"]\n', ", row 39: not_an_object: expected a JSON "),
        ("a.tsv", b"id\tlang\ttext\n1\ten\n", ", row 0: wrong_column_count: expected 3 columns, found 2"),
        (
            "a.tsv",
            b"id\tlang\ttext\n1\ten\t\xff\n",
            ", row 0: undecodable_bytes: text: 'utf-8' codec can't decode byte 0xff",
        ),
        ("a.jsonl.gz", b"no gzip", ": corrupt_file: not gzip data: Not a gzipped file (b'no')"),
    ],
)
def test_a_broken_row_is_an_error_that_says_where_and_how(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert failing(SchemaError, by_column(tmp_path)).startswith(f"corpora.books: {tmp_path}/{name}{said}")


@pytest.mark.parametrize(
    ("lang", "text"), [(None, "dog"), (7, "dog"), ("", "dog"), (" ", "dog"), ("en", None), ("en", 7), ("en", ["dog"])]
)
def test_a_language_or_a_text_that_is_no_text_is_an_error_that_shows_both(tmp_path: Path, lang: Any, text: Any) -> None:
    path = write(tmp_path / "a.jsonl", {"id": 1, "lang": lang, "text": text})
    assert failing(SchemaError, by_column(tmp_path)) == (
        f"corpora.books: {path}, row 0: expected a text in column text and its language, found {text!r} and {lang!r}"
    )


def test_a_path_in_which_lang_pattern_finds_nothing_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "english/a.tsv", {"id": 1, "text": "dog"})
    assert failing(SchemaError, by_folder(tmp_path)) == (
        f"corpora.books: {path}, row 0: expected a text in column text and its language, found 'dog' and None"
    )


# --- config -------------------------------------------------------------------------------------


def test_the_least_a_corpus_needs() -> None:
    config = corpus()
    assert (config.paths, config.format, config.weight, config.label) == (["x/*.tsv"], "auto", 1.0, None)
    assert config.texts == [ParallelText(column="text", lang="en")]


def test_each_column_that_is_used_is_read_once() -> None:
    texts = [{"column": "a", "lang": "en"}, {"column": "b", "lang_column": "code"}, {"column": "c", "lang": "sw"}]
    assert corpus(texts=texts, key=["id", "a"], label="code").wanted_columns == ["id", "a", "b", "c", "code"]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"path": None}, "path", "Field required"),
        ({"license": None}, "license", "Field required"),
        ({"key": []}, "key", "List should have at least 1 item after validation, not 0"),
        ({"texts": []}, "texts", "List should have at least 1 item after validation, not 0"),
        ({"weight": 0}, "weight", "Input should be greater than 0"),
        (
            {"format": "xml"},
            "format",
            "Input should be 'auto', 'jsonl', 'json', 'parquet', 'arrow', 'csv', 'tsv', 'lines', 'text' or 'markdown'",
        ),
        ({"lang": "en"}, "lang", "Extra inputs are not permitted"),
        (
            {"texts": [{"column": "a", "lang": "en", "lang_column": "b"}]},
            "texts.0",
            "Value error, name lang or lang_column, not both",
        ),
        (
            {"texts": [{"column": "a", "lang": "en"}, {"column": "b"}]},
            "",
            "Value error, texts.b: name its lang or lang_column, or give lang_pattern",
        ),
        (
            {"lang_pattern": "([a-z]+)"},
            "lang_pattern",
            "Value error, needs a group named lang, as in '/(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/'",
        ),
        (
            {"lang_pattern": "(?P<lang>"},
            "lang_pattern",
            "Value error, not a regular expression: missing ), unterminated subpattern at position 0",
        ),
        (
            {"ignore_in_key": "[{}"},
            "ignore_in_key",
            "Value error, not a regular expression: unterminated character set at position 0",
        ),
    ],
)
def test_what_a_corpus_may_not_say(changes: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        corpus(**changes)
    [error] = caught.value.errors()
    assert (".".join(map(str, error["loc"])), error["msg"]) == (field, message)
