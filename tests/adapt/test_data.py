"""Which rows adapters are trained on, and what becomes of each; tasks run as plain functions, without Ray."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from training_data import chat, document, made, tokenized

from compass_ray import records
from compass_ray.adapt import data
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.artifacts import Artifact, artifact


@pytest.fixture
def gathered(tmp_path: Path) -> Artifact:
    """Two shards: current rows of two target languages, pool and usage rows, a reject, and a selection."""
    rows = [
        [document("current", "sw", f"habari namba {n} ya leo" + " na kesho" * n) for n in range(20)],
        [
            *[document("current", "sw", f"swali {n}", chat(f"swali {n}", f"jibu la swali {n}")) for n in range(5)],
            document("current", "sw", "bila jibu", chat("bila jibu", None)),
            document("current", "ta", "வணக்கம் உலகம்"),
            document("pool", None, "a pool row that is not selected"),
            document("usage", "sw", "matumizi halisi"),
        ],
    ]
    chosen = document("pool", None, "chosen for both")
    reject = {**document("current", "sw", ""), "reject": {"reason": "empty", "message": "", "raw": b""}}
    shards = {
        "00000": pa.Table.from_pylist([*rows[0], reject], schema=records.INGESTED),
        "00001": pa.Table.from_pylist([*rows[1], chosen], schema=records.INGESTED),
    }
    documents = made(tmp_path, "ingest", shards)
    drawn = [{**chosen, "selected_for": target_lang, "cluster": 0, "rank": 1} for target_lang in ("sw", "ta")]
    selection = made(tmp_path, "select", {"00001": pa.Table.from_pylist(drawn, schema=records.SELECTION)})
    target = artifact(str(tmp_path), "gather", {"made": "by a test"})
    target.commit(
        data._gather_shard(key, documents, selection, True, None, None, frozenset(), target) for key in shards
    )
    return target


def test_current_rows_and_the_selection_are_gathered_for_their_target_languages(gathered: Artifact) -> None:
    assert data.languages_of(gathered) == {"sw": 27, "ta": 2}
    rows = pa.concat_tables([gathered.read(key) for key in ("00000", "00001")]).to_pylist()
    assert Counter((row["target_lang"], row["selected"]) for row in rows) == {
        ("sw", False): 26, ("ta", False): 1, ("sw", True): 1, ("ta", True): 1,
    }  # fmt: skip
    assert {row["text"] for row in rows if row["selected"]} == {"chosen for both"}


def test_every_row_has_a_fate_and_the_counts_add_up(gathered: Artifact, tiny_base: Path) -> None:
    tokens = tokenized(gathered, tiny_base, "sw")
    documents = tokens.read("sw-documents").to_pylist()
    counts = data.counts_of(tokens, "sw")
    assert len({row["doc_id"] for row in documents}) == 27
    assert counts["train"] + counts["heldout"] + counts["dropped"] == 27
    assert counts["dropped_reasons"] == {"no_trainable_token": 1}
    dropped = [row for row in documents if row["part"] == "dropped"]
    assert [(row["reason"], row["trained"]) for row in dropped] == [("no_trainable_token", 0)]
    train, heldout = (data.read_packs(tokens, "sw", part) for part in ("train", "heldout"))
    assert len(train.documents) == counts["train"]
    assert len(heldout.documents) == counts["heldout"] > 0
    assert int(train.trained.sum()) == counts["trained_tokens"]
    assert len(data.trained_documents(tokens, "sw")) == counts["train"]


def test_held_out_documents_are_in_no_training_pack(gathered: Artifact, tiny_base: Path) -> None:
    tokens = tokenized(gathered, tiny_base, "sw")
    by_part = {"train": set(), "heldout": set()}
    for row in tokens.read("sw-documents").to_pylist():
        if row["part"] in by_part:
            by_part[row["part"]].add(row["content_id"])
    assert not by_part["train"] & by_part["heldout"]


def test_a_prompt_too_long_for_its_answer_is_dropped_and_says_why(gathered: Artifact, tiny_base: Path) -> None:
    tokens = tokenized(gathered, tiny_base, "sw", max_length=12)
    counts = data.counts_of(tokens, "sw")
    assert counts["dropped_reasons"] == {"cut_before_the_answer": 5, "no_trainable_token": 1}
    assert counts["truncated"] == sum(row["truncated"] for row in tokens.read("sw-documents").to_pylist()) >= 20


def test_replay_rows_are_a_share_of_the_training_rows_with_their_text(gathered: Artifact, tiny_base: Path) -> None:
    tokens = tokenized(gathered, tiny_base, "sw", replay_fraction=0.5)
    replayed = {row["doc_id"]: row for row in tokens.read("sw-replay").to_pylist()}
    trained = {bytes.fromhex(value) for value in data.trained_documents(tokens, "sw")}
    assert set(replayed) < trained
    assert 0.2 * len(trained) < len(replayed) < 0.8 * len(trained)
    assert all(row["text"] for row in replayed.values())


def test_a_base_without_a_chat_template_refuses_conversations_and_takes_plain_text(
    gathered: Artifact, tiny_base: Path, tmp_path: Path
) -> None:
    import shutil

    from compass_ray.errors import ConfigError

    plain = tmp_path / "plain"
    shutil.copytree(tiny_base, plain)
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"adapt\.chat_template"):
        tokenized(gathered, plain, "sw")
    assert data.counts_of(tokenized(gathered, plain, "ta"), "ta")["dropped"] == 0


def test_the_tokenizer_fingerprint_follows_the_tokenizer_and_the_template(tiny_base: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    first = TokenizerSource(AdaptConfig(base=str(tiny_base)), None)
    assert TokenizerSource(AdaptConfig(base=str(other)), None).fingerprint() == first.fingerprint()
    assert TokenizerSource(AdaptConfig(base=str(other)), "{{ messages }}").fingerprint() != first.fingerprint()
    (other / "chat_template.jinja").write_text("{{ messages }}")
    assert TokenizerSource(AdaptConfig(base=str(other)), None).fingerprint() != first.fingerprint()


def test_calls_and_tools_reach_the_template_and_what_it_leaves_out_is_counted(tmp_path: Path, tiny_base: Path) -> None:
    function = {"name": "hesabu", "arguments": '{"ya": "miguu"}'}
    call = {"id": None, "type": "function", "function": function}
    said = {"role": "assistant", "content": "Minane."}
    chats = [
        [{"role": "user", "content": "Miguu?"}, {**said, "content": "", "tool_calls": [call]}],
        [{"role": "user", "content": "Miguu?"}, {**said, "reasoning_content": "Ni buibui."}],
        [{"role": "user", "content": "Miguu?"}, {**said, "weight": 0}],
        [{"role": "user", "content": "Miguu?"}, said],
    ]
    tools = '[{"type": "function", "function": {"name": "hesabu"}}]'
    rows = [{**document("current", "sw", f"Miguu? {n}", turns), "tools": tools} for n, turns in enumerate(chats)]
    documents = made(tmp_path, "ingest", {"00000": pa.Table.from_pylist(rows, schema=records.INGESTED)})
    target = artifact(str(tmp_path), "gather", {"made": "by a test"})
    target.commit([data._gather_shard("00000", documents, None, True, None, None, frozenset(), target)])
    tokens = tokenized(target, tiny_base, "sw", heldout_fraction=0, replay_fraction=1)
    counts = data.counts_of(tokens, "sw")
    assert counts["dropped_reasons"] == {"tool_calls_not_in_template": 1, "all_weights_zero": 1}
    assert counts["not_in_template"] == {"reasoning": 1, "tools": 2}
    assert (counts["chats"], counts["ends_answers"], counts["told_date"]) == (2, True, None)
    replayed = tokens.read("sw-replay").to_pylist()
    assert {row["tools"] for row in replayed} == {tools}
    assert sorted(row["messages"][1]["reasoning_content"] or "" for row in replayed) == ["", "Ni buibui."]
