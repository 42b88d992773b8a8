"""Near-duplicates: buckets are met as often as the theory says, and what is left out depends on the documents alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.artifacts import Manifest
from compass_ray.ingest import minhash
from compass_ray.ingest.config import IngestConfig, MinHash, SourceConfig
from compass_ray.ingest.minhash import Banding, banding, bucket_hashes
from compass_ray.ingest.near_duplicates import _BUCKET, _in_groups, shared_buckets, whole_texts, without
from compass_ray.ingest.ngrams import Lengths
from compass_ray.ingest.shuffle import count_rows
from compass_ray.ingest.stage import IngestPlan, check_usable, ingest, plan, quarantine, row_counts
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.stage import session

WORD = Lengths(1, 1, 1)
FIVE = MinHash().lengths


def passage(number: int, words: int = 60) -> list[str]:
    rng = np.random.default_rng(number)
    return [f"w{word}" for word in rng.integers(0, 10**9, words)]


# --- the kernel ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [155, 165, 180])
def test_documents_meet_as_often_as_their_similarity_says(shared: int) -> None:
    cut, pairs, size = banding(0.7, 128), 400, 200
    texts = []
    for number in range(pairs):
        words = passage(number, 2 * size - shared)
        texts += [" ".join(words[:size]), " ".join(words[-size:])]
    buckets, compared = bucket_hashes(texts, ["en"] * len(texts), WORD, cut)
    assert len(compared) == len(texts)
    met = (buckets[0::2] == buckets[1::2]).any(axis=1).mean()
    similarity = shared / (2 * size - shared)
    expected = float(cut.probability(np.array(similarity)))
    assert 0.1 < expected < 0.95
    assert abs(met - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs), (similarity, expected)
    strangers = buckets[0::2] == np.roll(buckets[1::2], 1, axis=0)
    assert not strangers.any()


def test_a_cut_uses_the_hashes_where_it_errs_least() -> None:
    assert banding(0.8, 128) == Banding(9, 13)  # as datasketch with equal weights
    for similarity in (0.5, 0.7, 0.9):
        cut = banding(similarity, 128)
        assert cut.bands * cut.rows <= 128
        below, above = cut.probability(np.array([similarity - 0.2, min(0.99, similarity + 0.15)]))
        assert below < 0.1
        assert above > 0.9


def test_only_words_count_and_languages_never_meet() -> None:
    plain = " ".join(passage(1))
    odd = "  ".join(passage(1)).upper().replace("W1", "«W1") + "!"
    buckets, compared = bucket_hashes([plain, odd, plain, "two words"], ["en", "en", "sw", "en"], FIVE, Banding(4, 3))
    assert compared.tolist() == [0, 1, 2]
    assert (buckets[0] == buckets[1]).all()
    assert not (buckets[0] == buckets[2]).any()
    assert len(np.unique(buckets[0])) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("soft hyphen", "so\u00adft hy\u00adphen"),
        ("ｆｕｌｌ ｗｉｄｔｈ", "full width"),
        ("می\u200cخواهم کتاب", "میخواهم كتاب"),
        ("العـربية ﻛﺘﺎﺏ", "العربية كتاب"),
        ("كَتَبَ", "كتب"),
    ],
)
def test_spellings_that_look_alike_meet_in_every_band(one: str, other: str) -> None:
    words = " ".join(passage(1))
    texts = [f"{words} {one}", f"{words} {other}"]
    buckets, _ = bucket_hashes(texts, ["fa", "fa"], FIVE, Banding(4, 3))
    assert (buckets[0] == buckets[1]).all()


def test_vowel_marks_make_another_signature_where_that_is_asked_for() -> None:
    words = " ".join("كتب" for _ in range(9))
    texts = [f"{words} كتب", f"{words} كَتَبَ"]
    for vowel_marks in (False, True):
        buckets, _ = bucket_hashes(texts, ["ar", "ar"], FIVE, Banding(64, 1), vowel_marks=vowel_marks)
        assert (buckets[0] == buckets[1]).all() != vowel_marks


def test_a_bucket_does_not_depend_on_the_documents_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join(passage(number, 3 + number)) for number in range(30)]
    whole, compared = bucket_hashes(texts, ["en"] * 30, FIVE, Banding(3, 4))
    monkeypatch.setattr(minhash, "_BLOCK", 7)
    pieces, again = bucket_hashes(texts, ["en"] * 30, FIVE, Banding(3, 4))
    assert (whole == pieces).all()
    assert (compared == again).all()
    one, _ = bucket_hashes([texts[20]], ["en"], FIVE, Banding(3, 4))
    assert (one[0] == whole[20]).all()


def test_nothing_to_compare_gives_nothing() -> None:
    for texts in ([], ["short", ""]):
        buckets, compared = bucket_hashes(texts, ["en"] * len(texts), FIVE, Banding(3, 4))
        assert buckets.shape == (0, 3)
        assert compared.tolist() == []


# --- buckets and shards -------------------------------------------------------------------------


@given(
    st.lists(st.binary(min_size=16, max_size=16), max_size=8, unique=True),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5)), max_size=30),
)
@settings(deadline=None, max_examples=200)
def test_a_document_that_shares_a_bucket_with_a_lower_id_is_found(ids: list[bytes], put: list[tuple[int, int]]) -> None:
    held = sorted({(member % len(ids), bucket) for member, bucket in put}) if ids else []
    rows = [{"hash": bucket, "doc_id": ids[member], "shard": member} for member, bucket in held]
    found = shared_buckets(pa.Table.from_pylist(rows, schema=_BUCKET))
    lowest: dict[bytes, bytes] = {}
    for member, bucket in held:
        lower = [ids[other] for other, same in held if same == bucket and ids[other] < ids[member]]
        if lower:
            lowest[ids[member]] = min(min(lower), lowest.get(ids[member], ids[member]))
    assert found.to_pylist() == [
        {"shard": ids.index(doc_id), "doc_id": doc_id, "first": lowest[doc_id]} for doc_id in sorted(lowest)
    ]


def test_many_parts_are_split_from_several_shards_at_once() -> None:
    assert _in_groups("abcde", 8) == ["a", "b", "c", "d", "e"]
    assert _in_groups("abcde", 32) == ["ab", "cd", "e"]


def document(number: int, role: str = "pool", messages: list[dict[str, str]] | None = None) -> dict[str, Any]:
    text = " ".join(passage(number))
    row = {"role": role, "lang": "en", "source": "web", "uri": "f", "row": number, "text": text, "messages": messages}
    return {"doc_id": bytes([number]) * 16, "content_id": bytes(16), **row}


def test_what_is_left_out_becomes_a_reject_and_usage_stays() -> None:
    rows = [document(1), document(2), document(3, role="usage"), document(4)]
    shard = pa.Table.from_pylist(rows, schema=records.INGESTED)
    kept = without(shard, {bytes([2]) * 16: bytes([1]) * 16})
    assert [row["doc_id"][0] for row in records.documents_only(kept).to_pylist()] == [1, 3, 4]
    reject = kept.to_pylist()[-1]
    assert (reject["row"], reject["text"]) == (2, None)
    assert reject["reject"]["reason"] == "near_duplicate"
    assert reject["reject"]["message"] == f"nearly the same as document {'01' * 16}"
    assert reject["reject"]["raw"].decode() == rows[1]["text"]
    assert sum(rows for *_, rows in count_rows(kept)["rows"]) == 4


def test_all_turns_of_a_conversation_are_compared() -> None:
    chat = [{"role": "user", "content": "why\nso?"}, {"role": "assistant", "content": "because"}]
    table = pa.Table.from_pylist([document(1), document(2, messages=chat)], schema=records.INGESTED)
    for shard in (table, table.slice(1), pa.concat_tables([table, table.slice(1)])):
        assert whole_texts(shard).to_pylist()[-1] == "why so? because"
    assert whole_texts(table)[0].as_py() == " ".join(passage(1))
    assert whole_texts(table.slice(0, 0)).to_pylist() == []


# --- the stage ----------------------------------------------------------------------------------


FAMILIES, COPIES, ALONE = 12, 4, 40


def planned(root: Path, shard_bytes: int = 1 << 10, **given: Any) -> IngestPlan:
    sources = {
        "web": SourceConfig(role="pool", path=f"{root}/pool.jsonl", columns={"text": "text", "lang": "lang"}),
        "usage": SourceConfig(role="usage", path=f"{root}/usage.jsonl", lang="en"),
    }
    return plan(sources, IngestConfig(shard_bytes=shard_bytes, **given), str(root / f"out{shard_bytes}"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Families of texts that differ in one word of sixty, texts of their own, and usage that repeats itself."""
    families = [
        " ".join([*words[:copy], "other", *words[copy + 1 :]])
        for words in map(passage, range(FAMILIES))
        for copy in range(COPIES)
    ]
    alone = [" ".join(passage(1000 + number)) for number in range(ALONE)]
    rows = [{"text": text, "lang": "en"} for text in families + alone] + [{"text": families[0], "lang": "sw"}]
    for name, content in (("pool", rows), ("usage", [{"text": text} for text in families[:COPIES]])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in content))
    return tmp_path


def ingested(work: IngestPlan, output: str) -> tuple[Manifest, list[tuple[str, bool]]]:
    with session(output, RayConfig(), None, "near") as opened:
        manifest = ingest(work, IngestConfig(), opened)
        assert not quarantine(work.artifact, opened).manifest().receipts
        return manifest, [(record.stage, record.reused) for record in opened.stages[:-1]]


def texts_of(work: IngestPlan) -> set[tuple[str, str, str]]:
    tables = [records.documents_only(table) for table in work.artifact.read_all(work.artifact.manifest().receipts)]
    rows = pa.concat_tables(tables).select(["role", "lang", "text"]).to_pylist()
    return {tuple(row.values()) for row in rows}


def test_one_of_each_family_stays_whatever_the_shards(local_ray: None, root: Path) -> None:
    left: list[set[tuple[str, str, str]]] = []
    for shard_bytes in (1 << 10, 1 << 20):
        work = planned(root, shard_bytes, minhash={})
        manifest, stages = ingested(work, str(root / f"out{shard_bytes}"))
        assert stages == [("read", False), ("minhash", False), ("ingest", False)]
        assert row_counts(manifest) == {
            ("web", "document"): FAMILIES + ALONE + 1,
            ("web", "near_duplicate"): FAMILIES * (COPIES - 1),
            ("usage", "document"): COPIES,
        }
        check_usable(manifest, IngestConfig(max_bad_fraction=0), ["pool", "usage"])
        left.append(texts_of(work))
    assert [planned(root, size, minhash={}).near_duplicates.n_parts for size in (1 << 10, 1 << 20)] == [8, 1]
    assert left[0] == left[1]


def test_shards_that_are_there_are_not_written_again_though_what_they_came_from_is_gone(
    local_ray: None, root: Path
) -> None:
    work, output = planned(root, minhash={}), str(root / "out1024")
    assert work.near_duplicates is not None
    first, _ = ingested(work, output)
    assert ingested(work, output) == (first, [("ingest", True)])
    finished = {key: (work.artifact.read(key), first.receipts[key].summary) for key in [*first.receipts][::2]}
    (Path(work.artifact.url) / "manifest.json").unlink()
    for key, (table, summary) in finished.items():
        work.artifact.write(key, table, summary)
    shutil.rmtree(work.near_duplicates.read.url)
    with session(output, RayConfig(), None, "near") as opened:
        again = ingest(work, IngestConfig(), opened)
    assert again.receipts == first.receipts
    told = [(record.stage, record.reused, record.resumed_keys) for record in opened.stages]
    assert told == [("read", False, 0), ("minhash", True, 0), ("ingest", False, len(finished))]


def test_parts_that_are_found_are_not_looked_for_again(local_ray: None, root: Path) -> None:
    work, output = planned(root, minhash={}), str(root / "out1024")
    first, _ = ingested(work, output)
    assert work.near_duplicates is not None
    found = work.near_duplicates.found
    assert sum(receipt.rows for receipt in found.manifest().receipts.values()) >= FAMILIES * (COPIES - 1)
    kept = {key: found.read(key) for key in list(found.manifest().receipts)[:-1]}  # one is missing
    for url in (found.url, work.artifact.url):
        (Path(url) / "manifest.json").unlink()
    for key, table in kept.items():
        found.write(key, table)
    with session(output, RayConfig(), None, "near") as opened:
        assert ingest(work, IngestConfig(), opened).receipts == first.receipts
    assert [record.resumed_keys for record in opened.stages] == [0, len(kept), 0]


def test_a_pool_in_which_nothing_can_be_compared_stays_whole(local_ray: None, root: Path) -> None:
    (root / "pool.jsonl").write_bytes(b"".join(orjson.dumps({"text": f"a{n}", "lang": "en"}) + b"\n" for n in range(9)))
    work = planned(root, minhash={})
    manifest, _ = ingested(work, str(root / "out1024"))
    assert row_counts(manifest)["web", "document"] == 9


def test_the_fingerprint_follows_what_decides(root: Path) -> None:
    plain = planned(root).artifact
    found = [planned(root, minhash=given).artifact for given in ({}, {"similarity": 0.7}, {"words": 3})]
    assert len({one.name for one in [plain, *found]}) == 4
    assert {one.stage for one in found} == {"ingest"}
