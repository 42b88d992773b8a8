"""Pool rows that nearly repeat usage are refused for its language, counted, shown and explained."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from demo import DEMO, demo_config

from compass_ray import CurationRun, curate
from compass_ray.artifacts import open_artifact
from compass_ray.holdout import heldout_mask
from compass_ray.pipelines.explain import explain_text
from compass_ray.vectors import from_column, unit_rows

EACH = 4
LIMIT = 0.8


def usage(lang: str) -> list[str]:
    with gzip.open(DEMO / "usage.tsv.gz", "rt", encoding="utf-8", newline="") as stream:
        rows = [row["question"] for row in csv.DictReader(stream, delimiter="\t") if row["lang"] == lang]
    return list(dict.fromkeys(rows))


def copies(text: str) -> dict[str, str]:
    """Near copies of a sentence: each has the same words, or lies near to it."""
    bare = text.rstrip(".")
    return {
        f"{bare}!": "sw",
        f"«{bare.upper()}»": "sw",
        bare.replace("a", "a\u00ad") + "?": "sw",
        f"{bare},": "en",  # a wrong label
        f"{bare} — ndiyo": "sw",
    }


def table_of(run: CurationRun, stage: str) -> pa.Table:
    made = open_artifact(f"{run.path.rsplit('/runs/', 1)[0]}/cache/{run.record['stages'][stage]['artifact']}")
    return pa.concat_tables(made.read_all(made.manifest().receipts))


@pytest.fixture(scope="module")
def folder(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("copied")
    planted = [row for text in usage("sw")[:30:3] for row in copies(text).items()]
    rows = [{"text": text, "lang": lang} for text, lang in planted]
    (folder / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def curated(folder: Path, name: str, *overrides: str) -> CurationRun:
    source = f"sources.copies={{role: pool, path: '{folder}/copies.jsonl', columns: {{text: text, lang: lang}}}}"
    whole_pool = ["sample.strategy=all", "sample.budget=null"]
    return curate(demo_config(folder / "out", source, f"name={name}", *whole_pool, *overrides))


@pytest.fixture(scope="module")
def copied(folder: Path) -> CurationRun:
    return curated(folder, "copied", f"sample.near_duplicate_similarity={LIMIT}")


def planted(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "copies.jsonl").read_text().splitlines()]


def test_near_copies_of_usage_known_and_held_out_are_drawn_for_no_target_language_of_it(
    folder: Path, copied: CurationRun
) -> None:
    ids = {row["doc_id"]: row["text"] for row in table_of(copied, "ingest").to_pylist() if row["source"] == "copies"}
    near = table_of(copied, "near_usage").to_pylist()
    by_words = {ids[row["doc_id"]] for row in near if row["doc_id"] in ids and row["same_words"]}
    assert by_words == {text for text in planted(folder) if not text.endswith("ndiyo")}
    assert {row["target_lang"] for row in near if row["doc_id"] in ids} == {"sw"}
    assert sum(row["doc_id"] in ids and not row["same_words"] for row in near) >= 5  # with one more word
    documents = table_of(copied, "ingest").select(["doc_id", "content_id", "role"])
    held = heldout_mask(documents, 0, 0.3)
    repeated = np.asarray(pc.is_in(documents["doc_id"], pa.array([row["usage"] for row in near], pa.binary(16))))
    assert (repeated & held).sum() >= 2
    assert (repeated & ~held).sum() >= 2
    drawn = {(row["doc_id"], row["selected_for"]) for row in table_of(copied, "select").to_pylist()}
    assert not drawn & {(row["doc_id"], row["target_lang"]) for row in near}
    assert drawn & {(doc_id, "hi") for doc_id in ids}


def test_what_is_near_is_what_every_pair_of_rows_says(copied: CurationRun) -> None:
    rows = table_of(copied, "embed")
    x = unit_rows(from_column(rows["vector"])).astype(np.float64)
    is_pool, is_usage = (np.asarray(pc.equal(rows["role"], role)) for role in ("pool", "usage"))
    ids, target_langs = rows["doc_id"].to_pylist(), rows["target_lang"].to_pylist()
    close = np.argwhere(x[is_pool] @ x[is_usage].T >= LIMIT)
    pool, known = np.flatnonzero(is_pool)[close[:, 0]], np.flatnonzero(is_usage)[close[:, 1]]
    pairs = {(ids[one], target_langs[other]) for one, other in zip(pool, known, strict=True)}
    near = table_of(copied, "near_usage").to_pylist()
    assert len(pairs) > EACH
    assert pairs <= {(row["doc_id"], row["target_lang"]) for row in near}
    assert pairs >= {(row["doc_id"], row["target_lang"]) for row in near if not row["same_words"]}


def test_they_are_counted_in_the_certificate_and_the_histograms_and_said(copied: CurationRun) -> None:
    assigned = table_of(copied, "assign").select(["doc_id", "content_id", "role", "outlier"]).to_pylist()
    usage_contents = {row["content_id"] for row in assigned if row["role"] == "usage"}
    inside = {
        row["doc_id"]
        for row in assigned
        if row["role"] == "pool" and not row["outlier"] and row["content_id"] not in usage_contents
    }
    near = [row for row in table_of(copied, "near_usage").to_pylist() if row["doc_id"] in inside]
    histogram = copied.histograms
    for target_lang, body in copied.certificate.items():
        expected = sum(row["target_lang"] == target_lang for row in near)
        mine = pc.and_(pc.equal(histogram["target_lang"], target_lang), pc.equal(histogram["role"], "near_usage"))
        assert body["near_usage"] == (pc.sum(histogram.filter(mine)["documents"]).as_py() or 0) == expected
        said = [note for note in body["notes"] if "may not be drawn" in note]
        assert len(said) == (expected > 0)
    assert copied.certificate["sw"]["near_usage"] > 5 * EACH
    assert f"a cosine of {LIMIT} and more) and may not be drawn" in " ".join(copied.certificate["sw"]["notes"])


def test_explain_says_which_usage_a_row_nearly_repeats(folder: Path, copied: CurationRun) -> None:
    [document] = explain_text(copied, planted(folder)[0]).documents
    verdicts = {verdict.target_lang: verdict for verdict in document.verdicts}
    why = "not eligible: but for case, punctuation or spelling it is Swahili usage (document "
    assert verdicts["sw"].reason.startswith(why)
    assert (verdicts["sw"].selected, verdicts["hi"].selected) == (False, True)


def test_off_compares_words_alone_and_shares_nothing_with_what_compares_vectors(
    folder: Path, copied: CurationRun
) -> None:
    run = curated(folder, "words", "sample.near_duplicates=off")
    near, before = (table_of(one, "near_usage").to_pylist() for one in (run, copied))
    assert near == [row for row in before if row["same_words"]]
    assert "Swahili usage (the same words) and may not be drawn" in " ".join(run.certificate["sw"]["notes"])


def test_two_shards_or_many_find_the_same(folder: Path, copied: CurationRun) -> None:
    run = curated(folder, "coarse", f"sample.near_duplicate_similarity={LIMIT}", "ingest.shard_bytes=10000000")

    def found(one: CurationRun) -> list[dict[str, Any]]:
        return sorted(table_of(one, "near_usage").to_pylist(), key=lambda row: (row["doc_id"], row["target_lang"]))

    assert found(run) == found(copied)
