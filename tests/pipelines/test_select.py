"""Strategies, near-duplicates and explanations over the demo corpus, through Ray."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from demo import DEMO

from compass_ray import CurationRun, RunConfig, curate
from compass_ray.artifacts import open_artifact
from compass_ray.errors import ConfigError, InfeasibleBudget
from compass_ray.pipelines.compare import Compared, compare, label, with_strategy
from compass_ray.pipelines.explain import explain, open_run
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.stage import drawing_of
from compass_ray.sample.usage_contrast import products
from compass_ray.sample.verdict import key_of
from compass_ray.vectors import from_column, unit_rows

Make = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URIEL tables in which Hindi is like Polish and unlike the others."""
    folder = tmp_path_factory.mktemp("uriel")
    langs = ["hin", "pol", "swh", "tam", "arb", "deu", "spa"]
    data = np.array([[1, 1, 0], [1, 1, 0.2], [0, 0.1, 1], [0, 0.2, 1], [0, 0.1, 1], [0.1, 0, 1], [0.1, 0.1, 1]])
    names = np.array(["S_A", "S_B", "P_C"])
    np.savez(folder / "features.npz", feats=names, langs=np.array(langs), data=data.astype(np.float32)[..., None])
    return str(folder)


def by_strategy(rows: list[Compared], target_lang: str) -> dict[str, Compared]:
    return {row.strategy: row for row in rows if row.target_lang == target_lang}


@pytest.mark.slow
@pytest.mark.release
def test_every_strategy_fills_the_same_budget_from_one_set_of_artifacts(demo: Make, features: str) -> None:
    names = [
        "kl", "deficit", "random", "all", "temperature", "unimax", "langsim", "importance", "nearest", "round_robin",
        "dsir",
    ]  # fmt: skip
    rows = compare(demo(f"sample.language_features={features}"), names)
    assert {row.target_lang for row in rows} == {"hi", "sw", "ta"}
    for target_lang in ("hi", "sw", "ta"):
        mine = by_strategy(rows, target_lang)
        assert list(mine) == names
        assert all(mine[name].certificate["selected_documents"] == 40 for name in names if name != "all")
        assert mine["kl"].certificate["after"]["jsd"] < mine["random"].certificate["after"]["jsd"]
        assert all(sum(row.languages.values()) == pytest.approx(1) for row in mine.values())
        assert mine["unimax"].effective_languages > 10
    hindi = by_strategy(rows, "hi")
    assert hindi["langsim"].languages["pl"] > 2 * hindi["langsim"].languages["sw"]


def test_a_strategy_that_cannot_keep_to_the_config_is_named(demo: Make) -> None:
    with pytest.raises(ConfigError, match=r"strategy 'dsir': .* needs a strategy with cluster quotas"):
        compare(demo("sample.max_language_fraction=0.5"), ["kl", "dsir"])
    with pytest.raises(ConfigError, match="strategy 'best'"):
        compare(demo(), ["best"])
    with pytest.raises(ConfigError, match="similarity_temperature needs a strategy with cluster quotas"):
        demo("sample.strategy=random", "sample.similarity_temperature=0.2")


def test_round_robin_over_the_base_model_is_called_rds_plus() -> None:
    assert label("round_robin", "base") == "round_robin (RDS+)"
    assert label("round_robin", "bundled") == "round_robin"
    assert label("kl", "base") == "kl"


def test_a_baseline_is_compared_without_what_only_cluster_quotas_read(demo: Make) -> None:
    given = demo("sample.similarity_temperature=0.2", "sample.own_language_epochs=2").sample
    assert given is not None
    assert with_strategy(given, "deficit").similarity_temperature == 0.2
    assert with_strategy(given, "random") == with_strategy(SampleConfig(budget=given.budget), "random")


def rows_of(run: CurationRun, target_lang: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = run.selection(target_lang).take_all()
    return rows


@pytest.mark.slow
@pytest.mark.release
def test_caps_and_tokens_hold_in_the_selection(demo: Make) -> None:
    run = curate(demo("sample.max_language_fraction=0.5", "sample.similarity_temperature=0.05"))
    for target_lang in run.languages:
        langs = [row["lang"] for row in rows_of(run, target_lang)]
        assert len(langs) == 40
        assert max(map(langs.count, langs)) <= 20
    tokens = curate(demo("sample.budget=null", "sample.budget_tokens=900", "name=tokens"))
    for target_lang, body in tokens.certificate.items():
        assert 800 < body["selected_tokens"] <= 900
        assert body["unused_budget"] == 900 - body["selected_tokens"]
        of_quotas = [row for row in rows_of(tokens, target_lang) if row["asked_by"] is not None]
        assert of_quotas
        assert all("within its quota of" in row["reason"] for row in of_quotas)


def test_a_shortfall_is_refused_or_accepted(demo: Make) -> None:
    with pytest.raises(InfeasibleBudget, match=r"take what there is with sample\.shortfall=accept"):
        curate(demo("sample.budget=5000", "sample.shortfall=refuse"))
    run = curate(demo("sample.budget=5000", "sample.shortfall=accept"))
    for body in run.certificate.values():
        assert 0 < body["selected_documents"] < 5000
        assert any("of the budget are not used" in note for note in body["notes"])


def test_what_the_pool_lacks_is_stated_and_filled_with_own_language_rows(demo: Make) -> None:
    run = curate(demo("sample.budget=300"))
    unmet = run.unmet.to_pylist()
    assert unmet
    assert all(row["unmet"] > 0 for row in unmet)
    for target_lang, body in run.certificate.items():
        mine = [row for row in unmet if row["target_lang"] == target_lang]
        assert body["unmet"] == sum(row["unmet"] for row in mine)
        assert any("of that share unfilled" in note for note in body["notes"])
        rows = rows_of(run, target_lang)
        assert len(rows) == body["selected_documents"] == sum(body["languages"].values())
        filled = [row for row in rows if row["asked_by"] is None]
        assert {row["lang"] for row in filled} <= {target_lang}
        assert all("fills the budget" in row["reason"] for row in filled)
        moved = [row for row in rows if row["asked_by"] not in (None, row["cluster"])]
        assert all(row["reason"].startswith("for cluster") for row in moved)
        gaps = [gap for gap in run.gaps.to_pylist() if gap["target_lang"] == target_lang]
        assert sum(gap["asked"] for gap in gaps) == 300
        assert sum(gap["moved_in"] for gap in gaps) == sum(gap["moved_out"] for gap in gaps) == len(moved)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Swahili pool rows again, each with another full stop at its end: other content, nearly the same vector."""
    lines = (DEMO / "pool" / "sw.jsonl").read_bytes().splitlines()
    texts = [row["text"] for line in lines if isinstance(row := json.loads(line), dict) and row.get("text")]
    path = tmp_path_factory.mktemp("copies") / "copies.jsonl"
    path.write_text("".join(json.dumps({"text": f"{text} ."}) + "\n" for text in texts))
    return str(path)


@pytest.mark.slow
def test_near_duplicates_are_passed_over_and_explained(fresh: Make, copies: str) -> None:
    source = f"sources.copies={{role: pool, path: {copies}, lang: sw, columns: {{text: text}}}}"
    run = curate(fresh(source, "sample.budget=150", "sample.shortfall=accept"))
    drawn = rows_of(run, "sw")
    chosen = [row["text"].removesuffix(" .") for row in drawn]
    assert len(chosen) == len(set(chosen))
    assert run.certificate["sw"]["near_duplicates"] > 0

    with_copies = rows_of(
        curate(fresh(source, "sample.budget=150", "sample.near_duplicates=off", "name=kept")),
        "sw",
    )
    texts = [row["text"].removesuffix(" .") for row in with_copies]
    assert len(texts) > len(set(texts)), "the corpus holds near-duplicates that are drawn when nobody looks"

    ids = {row["doc_id"] for row in drawn}
    twin = next(row for row in with_copies if row["doc_id"] not in ids and row["text"].removesuffix(" .") in chosen)
    verdict = next(verdict for verdict in explain(run, twin["doc_id"]).verdicts if verdict.target_lang == "sw")
    assert not verdict.selected
    assert verdict.reason.startswith("passed over: it nearly repeats document")
    assert verdict.reason.split("document ")[1][:32] in ids


@pytest.mark.slow
def test_near_duplicates_left_out_at_ingest_are_explained(fresh: Make, copies: str) -> None:
    source = f"sources.copies={{role: pool, path: {copies}, lang: sw, columns: {{text: text}}}}"
    run = curate(fresh(source, "ingest.minhash={}"))
    assert {"read", "minhash", "ingest"} <= {*run.record["stages"]}
    left_out = sum(rows for _, outcome, rows in run.ingested["rows"] if outcome == "near_duplicate")
    assert left_out > 0.9 * len(Path(copies).read_bytes().splitlines())
    output = Path(run.path).parent.parent
    documents = open_artifact(str(output / "cache" / run.record["stages"]["ingest"]["artifact"]))
    rows = pa.concat_tables(documents.read_all(documents.manifest().receipts)).to_pylist()
    gone = next(row for row in rows if row["reject"] and row["reject"]["reason"] == "near_duplicate")
    found = explain(run, gone["doc_id"].hex())
    assert found.text
    assert found.assignment is None
    stays = explain(run, found.rows[0]["reject"]["message"].removeprefix("nearly the same as document "))
    assert found.text.removesuffix(" .") == stays.text.removesuffix(" .")


def test_the_key_that_is_explained_is_the_one_of_the_draw(demo: Make) -> None:
    # more than clusters hold of what is asked for, and room for other languages
    run = curate(demo("sample.budget=80", "sample.own_language_epochs=1"))
    cache = Path(run.path).parent.parent / "cache"
    embedded, sampled = (
        open_artifact(str(cache / run.record["stages"][stage]["artifact"])) for stage in ("embed", "sample")
    )
    rows = pa.concat_tables(embedded.read_all(embedded.manifest().receipts))
    vectors = dict(zip(rows["doc_id"].to_pylist(), unit_rows(from_column(rows["vector"])), strict=True))
    drawing = drawing_of(sampled, run.record["seed"])
    assert set(drawing.directions) == set(drawing.target_langs)
    filled = 0
    for row in drawing.drawn.to_pylist():
        vector, target_lang = vectors[row["doc_id"]], row["target_lang"]
        if row["asked_by"] is None:  # it fills the budget: nearest to usage first, and chance has no part
            expected, filled = float(products(vector[None], drawing.directions[target_lang].vector)[0]), filled + 1
        else:
            expected = key_of(row["doc_id"], vector, target_lang, drawing)
        assert row["key"] == expected
    assert filled

    chosen = {row["doc_id"] for row in drawing.drawn.to_pylist()}
    reasons = (explain(run, doc_id.hex()).verdicts for doc_id in vectors if doc_id not in chosen)
    outranked = next(v.reason for verdicts in reasons for v in verdicts if "(key" in v.reason)
    own, lowest = (float(re.search(rf"{words} (-?[0-9.]+)", outranked)[1]) for words in ("key", "lowest drawn"))
    assert own < lowest


def test_every_document_has_an_explanation(finished_demo: CurationRun) -> None:
    run = open_run(finished_demo.path)
    row = rows_of(run, "sw")[0]
    found = explain(run, row["doc_id"])
    assert found.text == row["text"]
    assert {v.target_lang: v.selected for v in found.verdicts}["sw"]
    assert next(v for v in found.verdicts if v.target_lang == "sw").reason == row["reason"]
    assert all(not v.selected or v.target_lang == "sw" or "rank" in v.reason for v in found.verdicts)
    for bad, message in (("12", "expected 32 hexadecimal digits"), ("0" * 32, "has read no such document")):
        with pytest.raises(ConfigError, match=message):
            explain(run, bad)
