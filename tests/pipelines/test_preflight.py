"""Predictions follow from what is measured: more rows take longer, more CPUs less."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from demo import demo_config

from compass_ray.config import RunConfig
from compass_ray.embed.encoder import Input
from compass_ray.embed.hashing import HashingEncoder
from compass_ray.ingest.config import MinHash, SourceConfig
from compass_ray.ingest.survey import Survey, survey_all
from compass_ray.pipelines import preflight
from compass_ray.pipelines.preflight import Costs, Prediction, measure, predict

COSTS = Costs(start=1.5, load=5.0, write=4e-6, encode=3e-4, compare=2e-8, race=2e-7, dim=384)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return demo_config(tmp_path / "out")


@pytest.fixture
def surveys(config: RunConfig) -> list[Survey]:
    """The demo's, each of a million rows."""
    found = survey_all(config.sources, config.ingest.view)
    return [replace(one, rows=1_000_000, row_seconds=2e-5) for one in found]


def by_stage(stages: list[Prediction]) -> dict[str, Prediction]:
    return {stage.stage: stage for stage in stages}


def test_twice_the_rows_take_longer_and_more_memory_in_stages_that_hold_them(
    config: RunConfig, surveys: list[Survey]
) -> None:
    twice = [
        replace(one, rows=2 * one.rows, listing=replace(one.listing, files=one.files * 2), dialects={})
        for one in surveys
    ]
    less, more = (by_stage(predict(config, some, 64, 4, COSTS)) for some in (surveys, twice))
    assert more["meaning"].seconds == less["meaning"].seconds, "of a text that the package carries"
    assert all(more[stage].seconds > less[stage].seconds for stage in less if stage != "meaning")
    assert all(more[stage].peak_bytes >= less[stage].peak_bytes for stage in less)
    assert more["ingest"].peak_bytes > less["ingest"].peak_bytes
    assert more["sample"].peak_bytes > less["sample"].peak_bytes


def test_twice_the_cpus_halve_what_is_not_a_start(config: RunConfig, surveys: list[Survey]) -> None:
    two, four, eight = (by_stage(predict(config, surveys, 64, cpus, COSTS)) for cpus in (2, 4, 8))
    for stage in two:
        saved, saved_again = two[stage].seconds - four[stage].seconds, four[stage].seconds - eight[stage].seconds
        assert saved == pytest.approx(2 * saved_again)


def test_more_cpus_than_shards_embed_no_faster(config: RunConfig, surveys: list[Survey]) -> None:
    sixteen, more = (by_stage(predict(config, surveys, 8, cpus, COSTS))["embed"] for cpus in (16, 32))
    assert sixteen.seconds == more.seconds


def test_near_duplicates_take_two_stages_more(config: RunConfig, surveys: list[Survey]) -> None:
    near = config.model_copy(update={"ingest": config.ingest.model_copy(update={"minhash": MinHash()})})
    plain, found = (by_stage(predict(some, surveys, 64, 4, replace(COSTS, sign=2e-5))) for some in (config, near))
    assert [*found] == ["read", "minhash", *plain]
    assert found["minhash"].seconds > found["ingest"].seconds


def test_signatures_are_timed_on_texts_of_several_lines(config: RunConfig, tmp_path: Path) -> None:
    lines = [{"text": f"a line\nand {number} more of them\nand the last one"} for number in range(50)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = SourceConfig(role="pool", path=str(tmp_path / "a.jsonl"), lang="en")
    hashing = config.model_copy(update={"embed": config.embed.model_copy(update={"model": "hashing"})})
    near = hashing.model_copy(update={"ingest": config.ingest.model_copy(update={"minhash": MinHash()})})
    surveys = survey_all({"pool": source}, "prompt")
    assert measure(near, surveys).sign > 0
    assert measure(hashing, surveys).sign == 0


def test_a_codebook_that_exists_is_not_fitted(config: RunConfig, surveys: list[Survey]) -> None:
    frozen = config.model_copy(update={"cluster": config.cluster.model_copy(update={"codebook": "somewhere"})})
    assert "codebook" not in by_stage(predict(frozen, surveys, 64, 4, COSTS))


@pytest.mark.parametrize("changed", [{"n_clusters": "auto"}, {"method": "hdbscan"}, {"n_clusters": 400}])
def test_a_larger_search_for_clusters_takes_longer(
    config: RunConfig, surveys: list[Survey], changed: dict[str, object]
) -> None:
    other = config.model_copy(update={"cluster": config.cluster.model_copy(update=changed)})
    one, two = (by_stage(predict(some, surveys, 64, 4, COSTS))["codebook"] for some in (config, other))
    assert two.seconds > one.seconds


def test_a_slower_start_of_processes_lengthens_every_stage(config: RunConfig, surveys: list[Survey]) -> None:
    one, two = (by_stage(predict(config, surveys, 64, 4, replace(COSTS, start=start))) for start in (1.0, 3.0))
    assert all(two[stage].seconds > one[stage].seconds for stage in one)
    assert two["ingest"].seconds - one["ingest"].seconds > two["select"].seconds - one["select"].seconds


def test_the_weights_of_an_encoder_are_memory_of_every_actor(config: RunConfig, surveys: list[Survey]) -> None:
    light, heavy = (by_stage(predict(config, surveys, 64, 4, replace(COSTS, weights=size))) for size in (0, 1 << 30))
    assert heavy["ingest"].peak_bytes == light["ingest"].peak_bytes
    for stage in ("embed", "codebook", "sample"):
        assert heavy[stage].peak_bytes - light[stage].peak_bytes == 4 << 30


def test_a_slow_encoder_is_timed_on_few_texts(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(HashingEncoder):
        encoded: ClassVar[list[int]] = []

        def encode(self, inputs: Sequence[Input]) -> Any:
            self.encoded.append(len(inputs))
            return super().encode(inputs)

    monkeypatch.setattr(preflight, "encoder_from", lambda _: Slow())
    surveys = survey_all(config.sources, config.ingest.view)
    fast = measure(config, surveys).encode
    assert max(Slow.encoded) == config.embed.batch_texts
    Slow.encoded.clear()
    monkeypatch.setattr(preflight, "_PATIENCE_S", 0.0)
    assert measure(config, surveys).encode == pytest.approx(fast, rel=2)
    assert max(Slow.encoded) < 64
