"""Pool rows that share a passage with an evaluation are rejects that name it; near misses and other roles stay."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from compass_ray import records
from compass_ray.artifacts import Manifest
from compass_ray.cli.report import print_rows
from compass_ray.errors import EmptyInput, SchemaError
from compass_ray.ingest.config import FilesConfig, IngestConfig, Limits, SourceConfig
from compass_ray.ingest.contamination import Evaluations, contaminated_by_file, merged
from compass_ray.ingest.evaluations import evaluation_ngrams
from compass_ray.ingest.files import read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.ngrams import Lengths
from compass_ray.ingest.shuffle import finish_shard
from compass_ray.ingest.stage import IngestPlan, check_usable, ingest, plan, quarantine, read_unit, row_counts
from compass_ray.pipelines.publish import write_ingest
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import session

LATIN = "One river runs north past seven old mills before it meets the cold grey sea"
CHINESE = "这条河向北流经七座旧磨坊然后汇入大海"
JAPANESE = "この川は七つの古い水車小屋を過ぎて北へ流れる"
THAI = "แม่น้ำสายนี้ไหลไปทางเหนือผ่านโรงสีเก่าเจ็ดแห่ง"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def evaluations_of(
    path: Path, name: str = "bench", *, vowel_marks: bool = False, **given: Any
) -> tuple[Evaluations, dict[str, int]]:
    config = FilesConfig(path=str(path), **given)
    files = list_source(name, config).files
    table, counts = evaluation_ngrams(name, config, files, Lengths(), Limits(), vowel_marks=vowel_marks)
    return merged({name: table}, Lengths(), vowel_marks=vowel_marks), counts


@pytest.fixture
def bench(tmp_path: Path) -> Evaluations:
    texts = [LATIN, CHINESE, JAPANESE, THAI]
    return evaluations_of(written(tmp_path / "bench" / "test.jsonl", [{"text": text} for text in texts]))[0]


@pytest.mark.parametrize(
    "text",
    [
        LATIN,
        f"Someone copied this: {LATIN}; and went on.",
        LATIN.upper().replace(" ", " -- "),
        " ".join(LATIN.split()[1:14]),
        f"An English page that quotes {CHINESE[2:15]} in passing, between a good many other words",
        "，".join(CHINESE),
        f"前言{JAPANESE[5:18]}後記",
        f"ก่อน {THAI[3:45]} หลัง",
    ],
)
def test_a_planted_passage_is_found_in_any_script_case_and_punctuation(bench: Evaluations, text: str) -> None:
    [(row, message)] = bench.find(["clean", text]).items()
    assert row == 1
    assert message.startswith("shares a passage with bench:test.jsonl row ")


PERSIAN = "نمی\u200cدانم کتاب‌های قدیمی روی میز چوبی کنار پنجره بزرگ خانه ما چه کسی می\u200cخواند"
ARABIC = "كان الولد يقرأ كتابا قديما عن النهر الطويل الذي يمر بسبع طواحين قبل البحر"
HEBREW = "הנהר הארוך זורם צפונה ליד שבע טחנות ישנות לפני שהוא מגיע אל הים הקר"


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (LATIN, LATIN.replace("mills", "mi\u00adlls").replace("river", "ri\u00adver")),
        (LATIN, LATIN.replace("r", "r\u200b")),
        (LATIN, f"\ufeff{LATIN}"),
        (LATIN, "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else "\u3000" for c in LATIN)),
        (LATIN, LATIN.replace("fi", "ﬁ").replace("ff", "ﬀ").replace("it", "ｉｔ")),
        (LATIN, LATIN.replace("One", "\U0001d40e\U0001d427\U0001d41e")),
        (PERSIAN, PERSIAN.replace("\u200c", "")),
        (PERSIAN, PERSIAN.replace("ی", "ي").replace("ک", "ك")),
        (ARABIC, ARABIC.replace("ك", "ک").replace("ي", "ی")),
        (ARABIC, ARABIC.replace("ا", "اـ")),
        (ARABIC, "".join(f"{c}\u064e" if c != " " else c for c in ARABIC)),
        (ARABIC, ARABIC.replace("كان", "ﻛﺎﻥ").replace("ال", "ﺍﻟ")),
        (HEBREW, "".join(f"{c}\u05b8" if c != " " else c for c in HEBREW)),
        (THAI, THAI.replace("น้ำ", "น้ํา").replace("ไหล", "ไหล\u200b")),
        (CHINESE, CHINESE.replace("七", "\u2f00").replace("\u2f00", "七\ufe0f")),
    ],
)
def test_copies_that_a_reader_takes_for_the_same_are_found_both_ways(tmp_path: Path, known: str, text: str) -> None:
    assert text != known
    for evaluation, copy in ((known, text), (text, known)):
        bench, _ = evaluations_of(written(tmp_path / "test.jsonl", [{"text": evaluation}]))
        assert [*bench.find([unicodedata.normalize("NFC", copy)])] == [0]


def test_vowel_marks_tell_passages_apart_where_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "test.jsonl", [{"text": ARABIC}])
    pointed = "".join(f"{c}\u064e" if c != " " else c for c in ARABIC)
    assert [*evaluations_of(path)[0].find([pointed, ARABIC])] == [0, 1]
    assert [*evaluations_of(path, vowel_marks=True)[0].find([pointed, ARABIC])] == [1]


@pytest.mark.parametrize(
    "text",
    [
        " ".join(LATIN.split()[1:13]),  # 12 words of 15
        " ".join([*LATIN.split()[:12], "but", *LATIN.split()[13:]]),
        " ".join(sorted(LATIN.split())),
        f"前言{CHINESE[2:14]}后记",  # 12 characters
        f"ก่อน {THAI[3:30]} หลัง",  # at most 27 letters
        " ".join(LATIN.split()[1:13]) + CHINESE[2:14],
        "",
    ],
)
def test_a_near_miss_is_not_found(bench: Evaluations, text: str) -> None:
    assert bench.find([text]) == {}


def test_a_short_evaluation_text_is_found_only_as_a_whole(tmp_path: Path) -> None:
    short = "How many old mills stand there?"
    path = written(tmp_path / "a.jsonl", [{"text": short}, {"text": "Which one?"}, {"text": "几座？"}, {"text": LATIN}])
    bench, counts = evaluations_of(path)
    found = bench.find(["how many OLD mills – stand there", f"{short} Seven.", "Which one?", "几座？"])
    assert [*found] == []
    assert counts == {"texts": 4, "too_short": 3, "blank": 0, "ngrams": 3}
    longer = f"Please say: {short}"
    bench, counts = evaluations_of(written(path, [{"text": longer}]))
    assert [*bench.find([longer.upper(), f"{longer} Seven."])] == [0]
    assert counts == {"texts": 1, "too_short": 0, "blank": 0, "ngrams": 1}


def test_blank_and_null_rows_of_an_evaluation_are_counted(tmp_path: Path) -> None:
    rows = [{"text": LATIN}, {"text": ""}, {"text": None}, {"text": " \n"}]
    _, counts = evaluations_of(written(tmp_path / "a.jsonl", rows))
    assert {name: counts[name] for name in ("texts", "too_short", "blank")} == {"texts": 1, "too_short": 0, "blank": 3}


def test_the_first_file_and_row_is_named(tmp_path: Path) -> None:
    for name in ("b", "a"):
        written(tmp_path / f"{name}.jsonl", [{"text": "something else"}, {"text": LATIN}, {"text": LATIN}])
    bench, _ = evaluations_of(tmp_path)
    second = len(json.dumps({"text": "something else"})) + 1
    assert bench.find([LATIN]) == {0: f"shares a passage with bench:a.jsonl row {second}"}


def test_messages_are_counted_by_file_whatever_it_is_called() -> None:
    files = ("x:a row 3", "y:b\nc")
    messages = [f"shares a passage with {file} row {row}" for file in files for row in (1, 22)] + ["other"]
    assert contaminated_by_file(messages) == [("x:a row 3", 2), ("y:b\nc", 2)]


# --- rows ---------------------------------------------------------------------------------------


def tables(path: Path, bench: Evaluations, range_bytes: int = 1 << 20, **given: Any) -> pa.Table:
    source = SourceConfig(**{"role": "pool", "path": str(path), "lang": "en", **given})
    units = read_units({"s": list_source("s", source).files}, range_bytes)
    read = [
        table
        for unit in units
        for table in read_unit(unit, {"s": source}, "prompt", 1, frozenset({0}), evaluations=bench)
    ]
    return finish_shard(pa.concat_tables(read).select(records.INGESTED.names))


@pytest.mark.parametrize(("role", "documents"), [("pool", 1), ("current", 2), ("usage", 2)])
def test_only_the_pool_is_filtered(tmp_path: Path, bench: Evaluations, role: str, documents: int) -> None:
    path = written(tmp_path / "in.jsonl", [{"text": LATIN}, {"text": "clean"}])
    assert records.documents_only(tables(path, bench, role=role)).num_rows == documents


def test_a_passage_in_the_completion_is_found_though_the_prompt_is_embedded(tmp_path: Path, bench: Evaluations) -> None:
    path = written(tmp_path / "in.jsonl", [{"p": "Where does it run?", "c": LATIN}, {"p": "Where?", "c": "North."}])
    found = tables(path, bench, columns={"prompt": "p", "completion": "c"})
    assert found["text"].to_pylist() == ["Where?", None]
    reject = found["reject"][1].as_py()
    assert reject["reason"] == "contaminated"
    assert json.loads(reject["raw"])["c"] == LATIN


@pytest.mark.parametrize("range_bytes", [64, 200, 1000])
def test_any_ranges_give_the_same_rows(tmp_path: Path, bench: Evaluations, range_bytes: int) -> None:
    texts = [f"{number} {passage}" for number in range(8) for passage in (LATIN, CHINESE, THAI, "clean", "干净")]
    path = written(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    whole = tables(path, bench)
    assert records.documents_only(whole).num_rows == 16
    assert tables(path, bench, range_bytes).equals(whole)


# --- evaluation files ---------------------------------------------------------------------------


def test_a_broken_evaluation_row_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": LATIN}) + "\n{\n")
    with pytest.raises(
        SchemaError, match=rf"ingest\.decontaminate\.evaluations\.bench: {path}, row \d+: broken_json: "
    ):
        evaluations_of(path)


def test_an_evaluation_column_that_is_not_there_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="missing_column: the row has no question"):
        evaluations_of(written(tmp_path / "a.jsonl", [{"text": LATIN}]), columns={"text": "question"})


def test_rows_that_where_leaves_out_are_not_compared(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"text": LATIN, "split": "train"}, {"text": CHINESE, "split": "test"}])
    bench, counts = evaluations_of(path, where={"split": "test"})
    assert [*bench.find([LATIN, CHINESE])] == [1]
    assert counts["texts"] == 1


# --- the stage ----------------------------------------------------------------------------------


def planned(root: Path, on: bool = True, range_bytes: int = 1 << 20, **given: Any) -> IngestPlan:
    sources = {
        "web": SourceConfig(role="pool", path=f"{root}/pool.jsonl", lang="en"),
        "usage": SourceConfig(role="usage", path=f"{root}/usage.jsonl", lang="en"),
    }
    section = {"evaluations": {"bench": {"path": f"{root}/bench"}, "quiz": {"path": f"{root}/quiz.jsonl"}}, **given}
    config = IngestConfig(shard_bytes=1 << 12, range_bytes=range_bytes, decontaminate=section if on else None)
    return plan(sources, config, str(root / f"out{range_bytes}"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    clean = [{"text": f"Row {number} says nothing that is in an evaluation"} for number in range(60)]
    copied = [{"text": f"{LATIN} {number}"} for number in range(3)] + [
        {"text": f"{number} {THAI}"} for number in range(2)
    ]
    written(tmp_path / "pool.jsonl", clean[:30] + copied + clean[30:])
    written(tmp_path / "usage.jsonl", [{"text": LATIN}])
    written(tmp_path / "bench" / "test.jsonl", [{"text": LATIN}, {"text": "Yes?"}])
    written(tmp_path / "quiz.jsonl", [{"text": THAI}])
    return tmp_path


def test_the_fingerprint_follows_the_evaluations_and_is_as_before_without(root: Path) -> None:
    assert "evaluations" not in planned(root, on=False).artifact.identity
    before = planned(root).artifact.fingerprint
    assert (
        len({before, planned(root, on=False).artifact.fingerprint, planned(root, words=12).artifact.fingerprint}) == 3
    )
    assert planned(root, vowel_marks=True).artifact.fingerprint != before
    written(root / "quiz.jsonl", [{"text": CHINESE}])
    assert planned(root).artifact.fingerprint != before


def test_an_evaluation_that_matches_no_file_is_named(root: Path) -> None:
    with pytest.raises(EmptyInput, match=r"^ingest\.decontaminate\.evaluations\.none\.path: no file matches"):
        planned(root, evaluations={"none": {"path": f"{root}/none.jsonl"}})


def test_an_evaluation_without_a_text_long_enough_ends_the_run(local_ray: None, root: Path) -> None:
    written(root / "quiz.jsonl", [{"text": "Yes"}, {"text": None}])
    with (
        session(str(root / "out"), RayConfig(), None, "short") as opened,
        pytest.raises(EmptyInput, match=r"quiz: none of its 1 texts is long enough to be compared"),
    ):
        ingest(planned(root), IngestConfig(), opened)


def test_contaminated_rows_are_filtered_counted_and_shown_with_any_number_of_tasks(local_ray: None, root: Path) -> None:
    manifests: list[Manifest] = []
    said = io.StringIO()
    (root / "bench" / "old.tar").write_bytes(b"x" * 10)
    for range_bytes in (1 << 20, 1 << 10):
        work = planned(root, range_bytes=range_bytes)
        output = str(root / f"out{range_bytes}")
        with session(output, RayConfig(), Display(Console(file=said, width=200)), "clean") as opened:
            manifests.append(ingest(work, IngestConfig(), opened))
            rejects = quarantine(work.artifact, opened)
    assert manifests[0].receipts == manifests[1].receipts
    assert row_counts(manifests[0]) == {
        ("web", "document"): 60,
        ("web", "contaminated"): 5,
        ("usage", "document"): 1,
    }
    check_usable(manifests[0], IngestConfig(max_bad_fraction=0), ["pool", "usage"])
    assert sum(table.num_rows for table in rejects.read_all(rejects.manifest().receipts)) == 5
    run = CurationRun(f"{root}/runs/clean")
    write_ingest(run, work, manifests[1])
    assert run.ingested["contaminated"] == {"bench:test.jsonl": 3, "quiz:quiz.jsonl": 2}
    assert run.ingested["evaluations"]["bench"]["too_short"] == 1
    assert run.ingested["evaluations"]["quiz"]["blank"] == 0
    tar = {"reason": ".tar", "files": 1, "bytes": 10, "names": ["old.tar"]}
    assert run.ingested["left_out"] == {"evaluation bench": [tar]}
    assert "evaluation bench: not read: .tar (1 file, 10 bytes: old.tar)" in said.getvalue()
    shown = Console(file=io.StringIO(), width=120)
    print_rows(run, shown)
    assert "evaluation bench: 1 file not read (1 .tar): ingest.json" in shown.file.getvalue()
    assert "bench:test.jsonl: 3 pool rows share a passage with this evaluation file" in shown.file.getvalue()
    assert "bench: 1 of 2 evaluation texts are too short to be compared" in shown.file.getvalue()
