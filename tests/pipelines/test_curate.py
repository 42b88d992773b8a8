"""The whole path in one process, on a real local Ray and the demo corpus."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from demo import DEMO
from trees import tree_bytes

from compass_ray import CurationRun, RunConfig, curate, records
from compass_ray.artifacts import _read_manifest
from compass_ray.cli.report import print_rejected_run
from compass_ray.errors import (
    ConfigError,
    EmptyInput,
    InfeasibleBudget,
    ResourcesMissing,
    TooManyBadRows,
)
from compass_ray.holdout import heldout_mask
from compass_ray.ingest.cleaning import key_of
from compass_ray.ingest.hashes import content_ids, doc_ids, text_hashes
from compass_ray.pipelines.run import run_of

Make = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.parametrize("actors", [1, 2, 4])
def test_any_number_of_actors_gives_the_same_codebook_and_selection(
    actors: int, fresh: Make, finished_demo: CurationRun
) -> None:
    run = curate(fresh(f"cluster.actors={actors}", f"embed.actors={actors}"))
    assert tree_bytes(f"{run.path}/selection") == tree_bytes(f"{finished_demo.path}/selection")
    assert _codebook(run) == _codebook(finished_demo)


def _codebook(run: CurationRun) -> bytes:
    folder = Path(run.path).parent.parent / "cache" / run.record["stages"]["codebook"]["artifact"]
    return (folder / "codebook.parquet").read_bytes()


@pytest.mark.slow
@pytest.mark.release
def test_byte_ranges_of_any_size_give_the_same_selection(fresh: Make, finished_demo: CurationRun) -> None:
    run = curate(fresh("ingest.range_bytes=3000"))
    assert tree_bytes(f"{run.path}/selection") == tree_bytes(f"{finished_demo.path}/selection")


def test_a_second_run_reuses_every_stage_and_changes_no_byte(demo: Make) -> None:
    first = curate(demo())
    before = tree_bytes(f"{first.path}/selection")
    again = curate(demo())
    assert [stage.reused for stage in again.stages] == [True] * len(first.stages)
    assert tree_bytes(f"{again.path}/selection") == before


def test_an_interrupted_embedding_does_only_the_missing_shards(copied_demo: Make, finished_demo: CurationRun) -> None:
    folder = Path(copied_demo().output) / "cache" / finished_demo.record["stages"]["embed"]["artifact"]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    for entry in manifest["files"][:-2]:
        (folder / "_progress").mkdir(exist_ok=True)
        (folder / "_progress" / f"{entry['key']}.json").write_text(json.dumps(entry))
    for entry in manifest["files"][-2:]:
        (folder / f"{entry['key']}.parquet").unlink()
    _read_manifest.cache_clear()
    again = curate(copied_demo())
    embed = next(stage for stage in again.stages if stage.stage == "embed")
    assert (embed.reused, embed.resumed_keys) == (False, len(manifest["files"]) - 2)
    assert tree_bytes(f"{again.path}/selection") == tree_bytes(f"{finished_demo.path}/selection")


@pytest.mark.slow
def test_what_held_out_usage_says_changes_nothing_that_is_chosen_but_that_its_near_copies_are_refused(
    fresh: Make, finished_demo: CurationRun, tmp_path: Path
) -> None:
    rows = list(
        csv.DictReader(io.StringIO(gzip.decompress((DEMO / "usage.tsv.gz").read_bytes()).decode()), delimiter="\t")
    )
    rng = np.random.default_rng(0)
    cache = Path(finished_demo.path).parent.parent / "cache" / finished_demo.record["stages"]["ingest"]["artifact"]
    columns = ["doc_id", "role", "content_id"]
    documents = pa.concat_tables([pq.read_table(path, columns=columns) for path in cache.glob("*.parquet")])
    known = set(documents["doc_id"].to_pylist())
    others = set(documents.filter(pc.not_equal(documents["role"], "usage"))["content_id"].to_pylist())

    def id_of(lang: str, text: str) -> bytes:
        return doc_ids("usage", [lang], [lang], text_hashes([key_of(text).encode()]))[0]

    def content_of(text: str) -> pa.Array:
        return pa.array(content_ids([key_of(text).encode()]), records.ID)

    def held_out(text: str) -> bool:
        return bool(heldout_mask(pa.table({"content_id": content_of(text), "role": ["usage"]}), 0, 0.3)[0])

    def in_pool(text: str) -> bool:
        """Then the pool row may not be drawn, and is drawn once the usage is another."""
        return content_of(text)[0].as_py() in others

    def anything() -> str:
        while True:
            text = " ".join("".join(rng.choice(list("abcdefghijklmno"), 6)) for _ in range(8))
            if held_out(text):
                return text

    copied = [row for row in rows if held_out(row["question"]) and row["lang"] == "sw"][:5]
    copies = [{"text": f"«{row['question'].upper()}»", "lang": "sw"} for row in copied]
    (tmp_path / "copies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in copies))
    source = f"sources.copies={{role: pool, path: {tmp_path}/copies.jsonl, columns: {{text: text, lang: lang}}}}"
    selections, refused = [], []
    for number in range(2):
        path = tmp_path / f"usage-{number}.jsonl"
        path.write_text("".join(json.dumps({"question": row["question"], "lang": row["lang"]}) + "\n" for row in rows))
        run = curate(fresh(f"name=run-{number}", source, f"sources.usage.path={path}", "embed.center=language"))
        tables = [pq.read_table(file) for file in sorted(Path(run.path).glob("selection/*/*.parquet"))]
        # the last bits of a cosine follow the height of the matrix in which it is computed
        selections.append([table.drop_columns(["similarity"]).to_pylist() for table in tables])
        refused.append({target_lang: body["near_usage"] for target_lang, body in run.certificate.items()})
        changed = 0
        for row in rows:
            lang, text = row["lang"], row["question"]
            if id_of(lang, text) in known and held_out(text) and row not in copied and not in_pool(text):
                row["question"], changed = anything(), changed + 1
        assert number or changed > 40
    assert selections[0] == selections[1]
    assert refused[0] == refused[1] == {"hi": 0, "sw": len(copies), "ta": 0}
    assert not {row["text"] for row in copies} & {row["text"] for rows in selections[0] for row in rows}


def test_every_input_row_is_a_document_a_reject_or_a_duplicate(finished_demo: CurationRun) -> None:
    cache = Path(finished_demo.path).parent.parent / "cache" / finished_demo.record["stages"]["ingest"]["artifact"]
    rows: Counter[str] = Counter()
    for path in sorted(cache.glob("*.parquet")):
        rows.update(pq.read_table(path)["source"].to_pylist())

    def lines(*globs: str) -> int:
        return sum(path.read_bytes().count(b"\n") for glob in globs for path in DEMO.glob(glob))

    chats = lines("pool/*.chat.jsonl")
    tables = lines("pool/*.csv") - len(list(DEMO.glob("pool/*.csv")))
    usage = gzip.decompress((DEMO / "usage.tsv.gz").read_bytes()).count(b"\n") - 1
    assert dict(rows) == {
        "pool-text": lines("pool/*.jsonl") - chats,
        "pool-chat": chats,
        "pool-tables": tables,
        "current": lines("current.jsonl"),
        "usage": usage,
    }


def test_the_quarantine_names_each_dirty_row(finished_demo: CurationRun) -> None:
    rows = finished_demo.quarantine.to_pylist()
    reasons = Counter(row["reason"] for row in rows)
    assert reasons == {
        "broken_json": 1,
        "empty": 3,
        "language_unknown": 2,
        "missing_column": 1,
        "not_an_object": 1,
        "undecodable_bytes": 1,
        "wrong_column_count": 1,
        "wrong_type": 1,
    }
    broken = next(row for row in rows if row["reason"] == "broken_json")
    offset = broken["row"]
    line = (DEMO / "pool" / broken["uri"]).read_bytes()[offset:].split(b"\n")[0]
    assert broken["raw"].rstrip(b"\n") == line


def test_the_selection_fills_the_budget_and_explains_each_row(finished_demo: CurationRun) -> None:
    assert finished_demo.languages == ["hi", "sw", "ta"]
    for target_lang in finished_demo.languages:
        rows = finished_demo.selection(target_lang).take_all()
        assert len(rows) == 40
        assert len({row["doc_id"] for row in rows}) == 40
        assert all(row["role"] == "pool" and row["selected_for"] == target_lang for row in rows)
        assert all("of usage" in row["reason"] for row in rows)
        of_quotas = [row for row in rows if row["asked_by"] is not None]
        assert len(of_quotas) > 20
        assert all(f"rank {row['rank']} of quota" in row["reason"] for row in of_quotas)
        filled = [row for row in rows if row["asked_by"] is None]
        assert all(row["lang"] == target_lang and "fills the budget" in row["reason"] for row in filled)


def test_gaps_certificate_and_selection_agree(finished_demo: CurationRun) -> None:
    gaps = finished_demo.gaps.to_pylist()
    for target_lang in finished_demo.languages:
        mine = [gap for gap in gaps if gap["target_lang"] == target_lang]
        chosen = Counter(row["cluster"] for row in finished_demo.selection(target_lang).take_all())
        assert {gap["cluster"]: gap["drawn"] for gap in mine if gap["drawn"]} == dict(chosen)
        assert sum(gap["p_usage"] for gap in mine) == pytest.approx(1)
        assert all(gap["p_usage_low"] <= gap["p_usage_high"] for gap in mine)
        assert finished_demo.certificate[target_lang]["selected_documents"] == 40
    after, chance = (
        np.mean([body[name]["jsd"] for body in finished_demo.certificate.values()]) for name in ("after", "random")
    )
    assert after < chance  # of the target languages together: each has about twenty held-out documents


def test_load_dataset_opens_every_language(finished_demo: CurationRun, tmp_path: Path) -> None:
    import datasets

    folder = f"{finished_demo.path}/selection"
    assert datasets.get_dataset_config_names(folder) == ["hi", "sw", "ta"]
    for target_lang in finished_demo.languages:
        loaded = datasets.load_dataset(folder, target_lang, cache_dir=str(tmp_path))
        assert loaded["train"].num_rows == 40


def test_documents_of_a_target_language_never_repeat_what_it_trains_on_or_is_asked(finished_demo: CurationRun) -> None:
    usage = gzip.decompress((DEMO / "usage.tsv.gz").read_bytes()).decode()
    current = {json.loads(line)["text"] for line in (DEMO / "current.jsonl").read_bytes().splitlines()}
    for target_lang in finished_demo.languages:
        for row in finished_demo.selection(target_lang).take_all():
            assert row["text"] not in current
            assert f"\t{row['text']}\t" not in usage


@pytest.mark.parametrize("strategy", ["deficit", "random"])
def test_other_strategies_fill_the_same_budget(strategy: str, demo: Make) -> None:
    run = curate(demo(f"sample.strategy={strategy}"))
    assert all(body["selected_documents"] == 40 for body in run.certificate.values())


def test_all_takes_the_eligible_pool(demo: Make) -> None:
    run = curate(demo("sample.strategy=all", "sample.budget=null"))
    capacity = Counter[str]()
    for gap in run.gaps.to_pylist():
        capacity[gap["target_lang"]] += gap["capacity"]
    assert {target_lang: body["selected_documents"] for target_lang, body in run.certificate.items()} == dict(capacity)


def test_another_config_under_the_same_name_is_refused(demo: Make) -> None:
    curate(demo())
    with pytest.raises(ConfigError, match=r"holds a run of another config or other data .* give this run another name"):
        curate(demo("sample.budget=41"))


def test_a_budget_above_the_eligible_pool_says_how_many_there_are(demo: Make) -> None:
    with pytest.raises(InfeasibleBudget, match=r"'hi' asks for 999999 documents but only \d{3,4} of the pool"):
        curate(demo("sample.budget=999999", "sample.shortfall=refuse"))


def test_too_many_bad_rows_stop_the_run_after_all_that_was_found_is_written(
    demo: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    config = demo("ingest.max_bad_fraction=0")
    with pytest.raises(TooManyBadRows, match=r"worst: .*pool-text: 1 × broken_json"):
        curate(config)
    run = run_of(config)
    assert run.quarantine.num_rows == 11
    assert ["pool-text", "broken_json", 1] in run.ingested["rows"]
    assert sum(rows for *_, rows in run.ingested["rows"]) == 1621
    print_rejected_run(config)
    table = capsys.readouterr().err
    assert "Rows read: 1,621" in table
    assert re.search(r"pool-text +│ broken_json +│ +1 ", table)
    assert run.ingested["dialects"]["usage"] == {
        "delimiter tab, quote none, header, 3 columns": {"files": 1, "first": "usage.tsv.gz"}
    }
    assert "pool-tables: 2 files, es.csv first, read with delimiter comma" in table


def test_a_target_without_usable_rows_is_named(demo: Make, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"question": "", "lang": "sw"}\n')
    with pytest.raises(EmptyInput, match="no usage document is left"):
        curate(demo(f"sources.usage.path={tmp_path}/empty.jsonl"))


def test_files_of_an_interrupted_publication_do_not_mix_with_a_new_one(demo: Make) -> None:
    config = demo()
    stale = Path(config.output) / "runs" / config.name / "selection" / "sw" / "train-00001-of-00002.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"left by a killed run")
    run = curate(config)
    assert not stale.exists()
    assert len(run.selection("sw").take_all()) == 40


def test_actors_larger_than_any_node_are_refused_at_once(fresh: Make) -> None:
    with pytest.raises(ResourcesMissing, match=r"num_cpus 64 and num_gpus 0, but the largest node has 4 CPUs"):
        curate(fresh("embed.num_cpus=64"))
    with pytest.raises(ResourcesMissing, match=r"num_gpus 1, but the largest node has 4 CPUs and 0 GPUs"):
        curate(fresh("embed.num_gpus=1"))


def test_where_the_selection_alone_is_trained_on_current_data_do_not_count(demo: Make) -> None:
    run = curate(demo("sample.with_current=false"))
    assert all(body["before"] is None and body["current_documents"] == 0 for body in run.certificate.values())
    assert run.gaps["p_current"].null_count == run.gaps.num_rows


def test_a_config_without_a_sample_section_is_for_adapt_alone(fresh: Make) -> None:
    config = fresh().model_copy(update={"sample": None})
    with pytest.raises(ConfigError, match=r"sample: curate needs this section"):
        curate(config)
