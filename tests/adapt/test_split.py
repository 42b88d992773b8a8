"""What is held out, by content and over all languages at once; tasks run as plain functions, without Ray."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_data import ASKED, HOLDOUT, chat, document, id_of, made, tokenized, written

from compass_ray import records
from compass_ray.adapt import data, split, usage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.artifacts import Artifact, artifact
from compass_ray.holdout import Holdout, heldout_mask


@given(
    contents=st.lists(st.integers(0, 30), min_size=1, max_size=60), fraction=st.floats(0, 0.9), most=st.integers(1, 20)
)
def test_equal_content_is_on_one_side_and_no_more_is_held_out_than_allowed(
    contents: list[int], fraction: float, most: int
) -> None:
    ids = np.frombuffer(b"".join(id_of(content) for content in contents), dtype=np.uint8).reshape(-1, 16)
    held = split.heldout_mask(ids, 3, fraction, most)
    sides: dict[int, set[bool]] = {}
    for content, side in zip(contents, held.tolist(), strict=True):
        sides.setdefault(content, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    assert held.sum() <= most
    assert fraction > 0 or not held.any()


def training_rows(target_lang: str, contents: list[int]) -> list[dict[str, Any]]:
    return [
        {**document("current", target_lang, f"text {content}"), "selected": False, "equals_usage": content % 7 == 0}
        for content in contents
    ]


@settings(deadline=None, max_examples=60)
@given(
    contents=st.dictionaries(
        st.sampled_from(["sw", "ta", "hi"]), st.lists(st.integers(1, 60), min_size=1, max_size=60), min_size=2
    ),
    most=st.integers(1, 12),
)
def test_what_one_language_holds_out_no_language_trains_on(contents: dict[str, list[int]], most: int) -> None:
    tables = {
        lang: pa.Table.from_pylist(training_rows(lang, numbers), schema=records.TRAINING)
        for lang, numbers in contents.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        gathered = artifact(folder, "gather", {"made": "by a test"})
        counts = {lang: {"documents": {lang: table.num_rows}} for lang, table in tables.items()}
        gathered.commit([gathered.write(lang, table, counts[lang]) for lang, table in tables.items()])
        held = data._union(split.heldout_contents(lang, gathered, 3, 0.5, most) for lang in tables)
    scored, trained = set(), set()
    for table in tables.values():
        mask = split.language_mask(table, 3, 0.5, most)
        assert mask.sum() <= most
        reasons = split.barred(table, mask, held)
        for content, out, reason in zip(table["content_id"].to_pylist(), mask.tolist(), reasons, strict=True):
            if reason is None:
                (scored if out else trained).add(content)
    assert not scored & trained
    assert scored == set(held.to_pylist())
    assert not {id_of(f"text {content}") for content in range(0, 61, 7)} & (scored | trained)


# --- usage --------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    return written(tmp_path, ASKED)


def contents(tokens: Artifact, lang: str, part: str) -> set[bytes]:
    return {row["content_id"] for row in tokens.read(f"{lang}-documents").to_pylist() if row["part"] == part}


def test_held_out_usage_is_what_the_certificate_measures_on(corpus: dict[str, Any]) -> None:
    rows = corpus["documents"].read("00000")
    expected = rows.filter(pa.array(heldout_mask(rows, HOLDOUT.seed, HOLDOUT.fraction)))
    found = corpus["usage"].read("00000")
    assert 0 < found.num_rows < 18
    assert found["doc_id"].to_pylist() == expected["doc_id"].to_pylist()
    assert found["target_lang"].to_pylist() == expected["target_lang"].to_pylist()


def test_a_shard_whose_usage_is_all_known_gives_an_empty_table(tmp_path: Path, corpus: dict[str, Any]) -> None:
    out = artifact(str(tmp_path), "usage", {"fraction": 0})
    receipt = usage._usage_shard("00000", corpus["documents"], Holdout(7, 1e-9), out)
    assert (receipt.rows, receipt.summary) == (0, {"documents": {}})


def test_nothing_trains_on_held_out_usage_nor_on_what_another_language_is_scored_on(
    corpus: dict[str, Any], tiny_base: Path
) -> None:
    tokens = tokenized(corpus["gathered"], tiny_base, "sw", "ta", usage=corpus["usage"], heldout_documents=6)
    asked = set(corpus["usage"].read("00000")["content_id"].to_pylist())
    scored = asked | contents(tokens, "sw", "heldout") | contents(tokens, "ta", "heldout")
    for lang in ("sw", "ta"):
        counts = data.counts_of(tokens, lang)
        assert 0 < counts["heldout"] <= 6
        assert not contents(tokens, lang, "train") & scored
        assert not contents(tokens, lang, "heldout") & asked
        assert counts["dropped_reasons"]["equals_held_out_usage"] == counts_of_sw(corpus)
        assert counts["train"] + counts["heldout"] + counts["dropped"] == 82
        assert counts["in_language"] == {"train": counts["train"], "heldout": counts["heldout"]}
    assert any(
        "held_out_for_another_language" in data.counts_of(tokens, lang)["dropped_reasons"] for lang in ("sw", "ta")
    )


def counts_of_sw(corpus: dict[str, Any]) -> int:
    return corpus["usage"].read("00000")["target_lang"].to_pylist().count("sw")


def test_the_split_does_not_depend_on_which_languages_are_asked_for(corpus: dict[str, Any], tiny_base: Path) -> None:
    both = tokenized(corpus["gathered"], tiny_base, "sw", "ta", usage=corpus["usage"]).manifest().receipts
    alone = tokenized(corpus["gathered"], tiny_base, "sw", usage=corpus["usage"]).manifest().receipts
    assert all(both[key].hash == receipt.hash for key, receipt in alone.items())


def usage_counts(corpus: dict[str, Any], base: Path, **fields: Any) -> dict[str, Any]:
    tokens = tokenized(corpus["gathered"], base, "sw", usage=corpus["usage"], **fields)
    counts: dict[str, Any] = data.counts_of(tokens, "sw")["usage"]
    assert len(data.read_packs(tokens, "sw", "usage").documents) == counts["scored"]
    return counts


def test_a_bare_question_is_scored_as_text_and_an_answer_as_an_answer(tmp_path: Path, tiny_base: Path) -> None:
    from compass_ray.adapt.examples import chat_example, text_example
    from compass_ray.adapt.tokenizer import load_tokenizer

    corpus = written(tmp_path, ASKED, answered=True)
    rows = [row for row in corpus["usage"].read("00000").to_pylist() if row["target_lang"] == "sw"]
    assert {row["messages"] is None for row in rows} == {True, False}
    tokenizer = load_tokenizer(tiny_base)
    expected = [
        text_example(tokenizer, row["text"], 64)
        if row["messages"] is None
        else chat_example(tokenizer, row["messages"], 64)
        for row in rows
    ]
    tokens = tokenized(corpus["gathered"], tiny_base, "sw", usage=corpus["usage"])
    packs = data.read_packs(tokens, "sw", "usage")
    assert packs.trained.sum() == sum(example.trained.sum() for example in expected)
    assert packs.n_bytes.sum() == sum(example.n_bytes for example in expected)

    asked = [{**row, "messages": chat(row["text"], None)} for row in rows]
    bare = made(tmp_path, "bare", {"00000": pa.Table.from_pylist(asked, schema=records.USAGE)})
    counted = artifact(str(tmp_path), "bare", {"counted": True})
    counted.commit([counted.write("00000", bare.read("00000"), {"documents": {"sw": len(rows)}})])
    made_of, counts = usage.usage_packs(counted, "sw", tokenizer, AdaptConfig(base="none", max_length=64), 0)
    assert counts["scored"] == len(rows)
    assert made_of.trained.sum() == sum(text_example(tokenizer, row["text"], 64).trained.sum() for row in rows)


def test_usage_that_is_cut_dropped_or_not_drawn_is_counted(tmp_path: Path, tiny_base: Path) -> None:
    import shutil

    corpus = written(tmp_path / "data", ASKED, answered=True)
    rows = [row for row in corpus["usage"].read("00000").to_pylist() if row["target_lang"] == "sw"]
    chats = sum(row["messages"] is not None for row in rows)
    nothing: dict[str, Any] = {"truncated": 0, "dropped_reasons": {}, "not_in_template": {}}
    whole = {"heldout": len(rows), "scored": len(rows), "in_language": len(rows), **nothing}
    assert usage_counts(corpus, tiny_base, max_length=128) == whole
    cut = usage_counts(corpus, tiny_base, max_length=10)
    assert cut["truncated"] == cut["scored"] == len(rows) - chats
    assert cut["dropped_reasons"] == {"cut_before_the_answer": chats}
    few = usage_counts(corpus, tiny_base, max_length=128, heldout_documents=2)
    assert few == {**whole, "scored": 2, "in_language": 2}
    plain = tmp_path / "plain"
    shutil.copytree(tiny_base, plain)
    (plain / "chat_template.jinja").unlink()
    untold = usage_counts(corpus, plain, max_length=128)
    assert (untold["scored"], untold["dropped_reasons"]) == (len(rows) - chats, {"no_chat_template": chats})


def test_without_usage_there_is_nothing_to_score_on_it(corpus: dict[str, Any], tiny_base: Path) -> None:
    tokens = tokenized(corpus["gathered"], tiny_base, "sw")
    counts = data.counts_of(tokens, "sw")["usage"]
    nothing: dict[str, Any] = {"truncated": 0, "dropped_reasons": {}, "not_in_template": {}}
    assert counts == {"heldout": 0, "scored": 0, "in_language": 0, **nothing}
    assert len(data.read_packs(tokens, "sw", "usage")) == 0
    session: Any = None
    assert usage.heldout_usage(corpus["documents"], [], HOLDOUT, session) is None
    assert usage.heldout_usage(corpus["documents"], ["00000"], Holdout(7, 0), session) is None
