"""Real data sets as people keep them: every row is read as another reader reads it, or has a reason why not.

The table of docs/howto/sources.md, "Real data sets", is of these.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources import ingested

from compass_ray.ingest.cleaning import normalize
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.listing import list_source

DATA = Path(os.environ.get("COMPASS_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "exams").is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA"),
]

Row = dict[str, Any]


def lines(*patterns: str) -> Iterator[Row]:
    """Rows of JSON lines, plain or gzipped, by the json module."""
    for path in sorted(path for pattern in patterns for path in DATA.glob(pattern)):
        data = path.read_bytes()
        yield from map(json.loads, (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines())


def records(*patterns: str, fields: list[str] | None = None, **dialect: Any) -> Iterator[Row]:
    """Rows of delimited files by the csv module."""
    for path in sorted(path for pattern in patterns for path in DATA.glob(pattern)):
        with path.open(encoding="utf-8", newline="") as stream:
            yield from csv.DictReader(stream, fields, **dialect)


def choices(row: Row) -> str:
    return "\n".join(f"{one['label']}. {one['text']}" for one in row["question"]["choices"])


@dataclass(frozen=True)
class Use:
    """A source, and its texts by other means than ours; of chats the prompts."""

    path: str
    texts: Callable[[], Iterator[str]]
    rejects: dict[str, int] = field(default_factory=dict)
    langs: int = 1
    source: Row = field(default_factory=dict)


NO_LANG: Row = {"lang": None}
UNQUOTED: Row = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}

USES = {
    "headerless tsv": Use(
        "mgsm",
        lambda: (row["q"] for row in records("mgsm/*", fields=["q", "a"], **UNQUOTED)),
        langs=6,
        source=NO_LANG
        | {
            "header": "none",
            "columns": {"prompt": "column_1", "completion": "column_2"},
            "lang_pattern": "mgsm_(?P<lang>[a-z]+)",
        },
    ),
    "three to five choices": Use(
        "exams",
        lambda: (f"{row['question']['stem']}\n{choices(row)}" for row in lines("exams/*")),
        langs=11,
        source=NO_LANG
        | {
            "split": "all",
            "columns": {
                "prompt": "{question.stem}\n{question.choices.*:{label}. {text}}",
                "completion": "answerKey",
                "lang": "info.language",
            },
            "lang_map": {"North Macedonian": "mk"},
        },
    ),
    "folders by language, a number for an answer": Use(
        "xcopa",
        lambda: (f"{row['premise']}\n1. {row['choice1']}\n2. {row['choice2']}" for row in lines("xcopa/*/*")),
        langs=11,
        source=NO_LANG
        | {
            "columns": {"prompt": "{premise}\n1. {choice1}\n2. {choice2}", "completion": "{label}"},
            "lang_pattern": "^(?P<lang>[a-z]+)/",
        },
    ),
    "a table of languages": Use(
        "linguistic/linguameta.tsv",
        lambda: (
            f"{row['english_name']}: {row['wikidata_description']}"
            for row in records("linguistic/linguameta.tsv", delimiter="\t")
            if row["is_macrolanguage"] == "False"
        ),
        rejects={"filtered": 62},
        source={
            "columns": {"text": "{english_name}: {wikidata_description}"},
            "where": {"is_macrolanguage": False},
        },
    ),
    "csv with quoted lists": Use(
        "linguistic/lang_fam_geo.csv",
        lambda: (f"{row['name']}: {row['families']}" for row in records("linguistic/lang_fam_geo.csv")),
        source={"columns": {"text": "{name}: {families}"}},
    ),
    "csv, a third of it by where": Use(
        "linguistic/languoid.csv",
        lambda: (row["name"] for row in records("linguistic/languoid.csv") if row["level"] == "language"),
        rejects={"filtered": 18348},
        source={"columns": {"text": "name"}, "where": {"level": "language"}},
    ),
    "a column per language": Use(
        "oneruler/100_noun_list_translated.tsv",
        lambda: (row["sw"] for row in records("oneruler/*.tsv", **UNQUOTED)),
        source={"columns": {"text": "sw"}, "lang": "sw"},
    ),
    "prompts of a benchmark, a file each": Use(
        "oneruler/prompt",
        lambda: (path.read_text(encoding="utf-8") for path in sorted((DATA / "oneruler/prompt").glob("*/*"))),
        langs=13,
        source=NO_LANG | {"format": "text", "lang_pattern": "^(?P<lang>[a-z]+)/"},
    ),
    "a benchmark's rows, .json of lines": Use(
        "global_mmlu",
        lambda: (f"{row['question']}\nA. {row['option_a']}" for row in lines("global_mmlu/*")),
        source={"columns": {"prompt": "{question}\nA. {option_a}", "completion": "answer"}},
    ),
    "quoted tsv, splits by file, training only": Use(
        "sib200",
        lambda: (row["text"] for row in records("sib200/*/train.tsv", delimiter="\t")),
        langs=174,
        source=NO_LANG | {"lang_pattern": "^(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/"},
    ),
    "two splits of three, topics by where": Use(
        "sib200",
        lambda: (
            row["text"]
            for row in records("sib200/*/dev.tsv", "sib200/*/test.tsv", delimiter="\t")
            if row["category"] in ("health", "politics")
        ),
        rejects={"filtered": 39550},
        langs=174,
        source=NO_LANG
        | {
            "split": ["dev", "test"],
            "lang_pattern": "^(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/",
            "where": {"category": ["health", "politics"]},
        },
    ),
    "questions, splits by name": Use(
        "afriqa",
        lambda: (row["question"] for row in lines("afriqa/*.train.*")),
        langs=10,
        source=NO_LANG | {"columns": {"text": "question", "lang": "lang"}},
    ),
    "instructions with locales": Use(
        "tldr_pages.jsonl.gz",
        lambda: (row["prompt"] for row in lines("tldr_pages.jsonl.gz")),
        langs=35,
        source=NO_LANG
        | {"columns": {"prompt": "prompt", "completion": "completion", "lang": "lang", "timestamp": "added"}},
    ),
    "a dated stream": Use(
        "newsletters.jsonl.gz",
        lambda: (f"{row['section']}\n{row['text']}" for row in lines("newsletters.jsonl.gz")),
        langs=8,
        source=NO_LANG | {"columns": {"text": "{section}\n{text}", "lang": "lang", "timestamp": "date"}},
    ),
    "parallel text, a file per language": Use(
        "oldi_seed",
        lambda: (row["text"] for row in lines("oldi_seed/*")),
        langs=34,
        source=NO_LANG | {"lang_pattern": r"(?P<lang>[a-z]{3}_[A-Z][a-z]{3})\.jsonl"},
    ),
}


def prompt_of(row: Row) -> str:
    return str(row["text"] if row["messages"] is None else row["messages"][0]["content"])


def check(rows: pa.Table, use: Use) -> None:
    found = Counter(row["reason"] if row else "document" for row in rows["reject"].to_pylist())
    expected = Counter(map(normalize, use.texts()))
    assert found == {"document": expected.total(), **use.rejects}
    documents = rows.filter(rows["reject"].is_null()).select(["text", "messages", "lang", "timestamp"])
    assert Counter(map(prompt_of, documents.to_pylist())) == expected
    assert len(set(documents["lang"].to_pylist())) == use.langs
    if "timestamp" in use.source.get("columns", {}):
        assert documents["timestamp"].null_count == 0


@pytest.mark.parametrize("name", USES)
def test_every_row_is_read_as_other_readers_read_it(name: str) -> None:
    use = USES[name]
    check(ingested(DATA / use.path, **use.source), use)


ASKED = "Reply in the language of the question."


def chats() -> list[list[Row]]:
    return [
        [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answers"]}]
        for row in lines("afriqa/*")
    ]


def as_json_lines(folder: Path) -> Row:
    """ShareGPT's words, and the instruction beside the turns."""
    names = {"user": "human", "assistant": "gpt"}
    turns = ([{"from": names[one["role"]], "value": one["content"]} for one in chat] for chat in chats())
    rows = (json.dumps({"system": ASKED, "conversations": chat}) for chat in turns)
    (folder / "chats.jsonl").write_text("\n".join(rows))
    return {"messages": "conversations", "system": "system"}


def as_text_in_csv(folder: Path) -> Row:
    """Each chat as a JSON string in a field, as spreadsheets and databases hold it."""
    with (folder / "chats.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "messages"])
        writer.writerows([number, json.dumps(chat, ensure_ascii=False)] for number, chat in enumerate(chats()))
    return {"messages": "messages"}


def as_lists_in_parquet(folder: Path) -> Row:
    """Lists side by side, as ``datasets`` kept lists of objects."""
    rows = [{name: [one[name] for one in chat] for name in ("role", "content")} for chat in chats()]
    pq.write_table(pa.table({"messages": rows}), folder / "train-00000-of-00001.parquet")
    return {"messages": "messages"}


@pytest.mark.parametrize("written", [as_json_lines, as_text_in_csv, as_lists_in_parquet])
def test_chats_of_real_questions_are_read_from_every_shape(written: Callable[[Path], Row], tmp_path: Path) -> None:
    columns = written(tmp_path)
    rows = ingested(tmp_path, columns=columns)
    assert [row["reason"] for row in rows["reject"].to_pylist() if row] == ["empty"]  # one question is
    head = [("system", ASKED)] if "system" in columns else []
    expected = Counter(
        (*head, *((one["role"], normalize(one["content"])) for one in chat)) for chat in chats() if chat[0]["content"]
    )
    read = Counter(
        tuple((one["role"], one["content"]) for one in chat) for chat in rows["messages"].to_pylist() if chat
    )
    assert read == expected


def test_of_one_folder_with_everything_every_file_and_row_is_accounted_for() -> None:
    listing = list_source("s", SourceConfig(role="current", path=str(DATA), lang="en"))
    there = {str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.is_file()}
    read = {file.uri for file in listing.files}
    assert read < there
    assert len(read) + sum(one.files for one in listing.left_out) == len(there)
    expected: Counter[str] = Counter()
    for name in read:
        if name.endswith(".tsv"):
            rows: Iterator[Row] = records(name, delimiter="\t")
        else:
            rows = records(name) if name.endswith(".csv") else lines(name)
        outcomes = Counter("document" if "text" in row else "missing_column" for row in rows)
        whole = name.endswith((".tsv", ".csv")) and not outcomes["document"]  # a file is one fault if all rows lack it
        expected.update({"missing_column": 1} if whole else outcomes)
    found = ingested(DATA)
    assert Counter(row["reason"] if row else "document" for row in found["reject"].to_pylist()) == expected
    lost = found.filter(found["lost"].is_valid())
    sizes = {str(path.relative_to(DATA)): path.stat().st_size for path in DATA.rglob("*") if path.is_file()}
    assert {row["uri"]: row["lost"]["bytes"] for row in lost.select(["uri", "lost"]).to_pylist()} == {
        name: sizes[name] for name in read if name.endswith((".tsv", ".csv")) and not name.startswith("sib200")
    }
