"""Six real corpora in one ingest: every row that goes in is a document or has a reason why it is none."""

from __future__ import annotations

import csv
import gzip
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from compass_ray.config import load_config
from compass_ray.ingest.stage import document_counts, ingest, plan, row_counts
from compass_ray.runtime.stage import session

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("COMPASS_DATA", ROOT.parent / "shared" / "data"))

DATED = pa.array(["tldr", "newsletters"])

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "exams").is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA"),
]


def rows_in(pattern: str) -> int:
    """Rows by other means than ours: lines of JSON, and records of the csv module."""
    total = 0
    for path in DATA.glob(pattern):
        if path.suffix == ".tsv":
            with path.open(encoding="utf-8", newline="") as stream:
                total += sum(1 for _ in csv.DictReader(stream, delimiter="\t"))
        else:
            with gzip.open(path) as stream:
                total += sum(1 for line in stream if line.strip())
    return total


def test_every_row_of_six_corpora_is_accounted_for(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPASS_DATA", str(DATA))
    config = load_config(str(ROOT / "docs/examples/mixed.yaml"), [f"output={tmp_path}"])
    planned = plan(config.sources, config.ingest, str(tmp_path))
    with session(str(tmp_path), config.ray, None, "mixed") as opened:
        manifest = ingest(planned, config.ingest, opened)
    counts = row_counts(manifest)
    read: Counter[str] = Counter()
    for (source, _), rows in counts.items():
        read[source] += rows
    assert dict(read) == {
        "tldr": rows_in("tldr_pages.jsonl.gz"),
        "oldi_seed": rows_in("oldi_seed/*"),
        "newsletters": rows_in("newsletters.jsonl.gz"),
        "exams": rows_in("exams/*"),
        "afriqa": rows_in("afriqa/*.swa.*") + rows_in("afriqa/*.hau.*"),
        "sib200": rows_in("sib200/swh_Latn/*") + rows_in("sib200/hau_Latn/*"),
    }
    outcomes = {outcome for _, outcome in counts}
    assert outcomes <= {"document", "duplicate", "filtered", "too_short", "empty"}  # nothing is broken
    by_lang = {(role, target_lang, lang) for role, target_lang, lang in document_counts(manifest)}
    assert {("usage", "sw", "sw"), ("usage", "ha", "ha"), ("current", "sw", "sw"), ("current", "ha", "ha")} <= by_lang
    assert {("pool", None, lang) for lang in ("pt", "zh-Hant", "bg", "vi", "mi", "ja")} <= by_lang
    shard = planned.artifact.read(next(iter(manifest.receipts)))
    dated = shard.filter(pc.and_(shard["reject"].is_null(), pc.is_in(shard["source"], DATED)))
    assert dated.num_rows
    assert dated["timestamp"].null_count == 0
    years = pc.year(dated["timestamp"])
    assert pc.min(years).as_py() >= 2013
    assert pc.max(years).as_py() <= 2024
