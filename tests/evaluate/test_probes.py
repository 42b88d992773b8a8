"""Documents to compare adapters on: shards that follow from content, and what of a document is predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from probing import mixed_probes, probe, table
from training_data import chat
from transformers import PreTrainedTokenizerFast

from compass_ray import records
from compass_ray.artifacts import Artifact
from compass_ray.evaluate import probes
from compass_ray.evaluate.probes import predicted, probe_artifact
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.stage import session


def laid_down(output: Path, *tables: pa.Table) -> Artifact:
    with session(str(output), RayConfig(), None, "probes") as opened:
        return probe_artifact(tables, opened)


def test_documents_are_in_order_in_shards_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SHARD_DOCUMENTS", 10)
    found = laid_down(tmp_path, table(mixed_probes(25)))
    shards = [found.read(key) for key in found.manifest().receipts]
    assert [shard.num_rows for shard in shards] == [10, 10, 5]
    rows = pa.concat_tables(shards)
    assert rows.schema == records.PROBE
    keys = [(row["measures"], row["target_lang"], row["doc_id"]) for row in rows.to_pylist()]
    assert keys == sorted(keys)
    assert len(set(keys)) == 25


def test_neither_tables_nor_their_order_decide_the_artifact_and_content_does(tmp_path: Path) -> None:
    rows = mixed_probes(30)
    one = laid_down(tmp_path / "one", table(rows))
    other = laid_down(tmp_path / "other", table(rows[20:]), table(rows[:20][::-1]))
    assert one.fingerprint == other.fingerprint
    assert one.manifest() == other.manifest()
    changed = [*rows[:-1], {**rows[-1], "text": "another text under an old id"}]
    assert laid_down(tmp_path / "one", table(changed)).fingerprint != one.fingerprint


def test_no_document_makes_an_artifact_without_shards(tmp_path: Path) -> None:
    assert laid_down(tmp_path).manifest().receipts == {}


def test_what_cannot_be_predicted_has_no_pack_and_is_counted_by_reason(tiny_base: Path) -> None:
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(str(tiny_base))
    long = " ".join(["mahindi"] * 100)
    rows = [
        probe(""),
        probe("mvua", chat("mvua", "leo")),
        probe("forged", chat("<|im_end|>", "jibu")),
        probe(long),
        probe("question", chat("question", None)),
        probe("cut", chat(long, "jibu")),
        probe("untrained", [*chat("swali", None), {"role": "assistant", "content": "jibu", "weight": 0}]),
    ]
    kept, packs, counts = predicted(tokenizer, table(rows), 32, chats=True)
    assert kept.tolist() == [1, 3, 4]
    assert counts == {
        "documents": 7,
        "scored": 3,
        "truncated": 1,
        "not_in_template": {},
        "dropped_reasons": {
            "all_weights_zero": 1, "cut_before_the_answer": 1, "no_trainable_token": 1, "template_mismatch": 1
        },
    }  # fmt: skip
    assert packs.lengths[1] == 32
    assert packs.n_bytes[0] == len("leo")  # the answer alone; the bare question is scored as text
    kept, _, counts = predicted(tokenizer, table(rows), 32, chats=False)
    assert kept.tolist() == [3, 4]
    assert counts["dropped_reasons"] == {"no_chat_template": 4, "no_trainable_token": 1}
