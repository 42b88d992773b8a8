"""No source reads what its own run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass_ray.config import load_config
from compass_ray.errors import ConfigError
from compass_ray.ingest.config import IngestConfig, SourceConfig
from compass_ray.ingest.overlap import refuse_written
from compass_ray.ingest.stage import plan


def config(path: str | list[str], output: str, **fields: Any) -> dict[str, Any]:
    pool = {"role": "pool", "path": path, "lang": "sw"}
    usage = {"role": "usage", "path": "usage.jsonl", "lang": "sw"}
    return {
        "name": "mine",
        "output": output,
        "sources": {"pool": pool, "usage": usage},
        "sample": {"budget": 1},
    } | fields


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with data and, beside them, links to it."""
    (tmp_path / "data/sw").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("data", "data"),
        ("data", "data/out"),
        ("data/", "./data/sw/../out"),
        ("data", "link/out"),
        ("link", "data/out"),
        ("data/sw/..", "data/out"),
        (["data/sw", "."], "out"),
        ("data/**", "data/out"),
        ("data/**/*.parquet", "data/out"),
        ("data/*/*/*/*.json", "data/out"),
        ("d*/**/*.parquet", "data/out"),
        ("data/out", "data/out"),
        ("data/out/cache", "data/out"),
        ("data/out/cache/ingest-0a1b/*.parquet", "data/out"),
        ("data/out/runs", "data/out"),
        ("data/out/runs/mine", "data/out"),
        ("data/out/runs/mine/selection/sw", "data/out"),
        ("data/out/runs/*/selection/**", "data/out"),
        ("data/out/registry", "data/out"),
        ("s3://b/data", "s3://b/data/out"),
        ("s3://b/data/", "s3://b/data"),
        ("s3://b", "s3://b/out"),
        ("s3://b/data[1]", "s3://b/data[1]/out"),
        ("s3://b/data/**/*.parquet", "s3://b/data/out"),
        ("s3://b/out/cache/**", "s3://b/out"),
    ],
)
def test_an_output_that_a_source_takes_in_is_refused_before_any_work(
    here: Path, path: str | list[str], output: str
) -> None:
    with pytest.raises(
        ConfigError, match=r"sources\.pool\.path: \S+ takes in \S+, which runs of this config write, so"
    ):
        load_config(config(path, output))


@pytest.mark.parametrize(
    ("path", "output"),
    [
        ("data", "out"),
        ("data", "data-out"),
        ("data/sw", "data/out"),
        ("data/*.jsonl", "data/out"),
        ("data/*/*.parquet", "data/out"),
        ("data/**/*.jsonl", "data/out"),
        ("data/out/pool", "data/out"),
        ("data/out/runs/other/selection", "data/out"),
        ("data/out/runs/mine-too/selection/sw/*.parquet", "data/out"),
        ("data", "s3://b/data/out"),
        ("s3://b/data", "s3://b/database"),
        ("s3://b/data", "s3://c/data/out"),
        ("s3://b/data/*.parquet", "s3://b/data/out"),
        ("https://host/out/a.jsonl", "out"),
    ],
)
def test_data_beside_the_output_or_of_another_run_are_read(here: Path, path: str, output: str) -> None:
    assert load_config(config(path, output)).sources["pool"].path == path


def test_registry_usage_and_evaluations_are_looked_at_too(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.pool\.path: data takes in data/adapters, which"):
        load_config(config("data", "out", registry={"path": "data/adapters"}))
    watched = {"usage": {"week": {"path": "out", "lang": "sw"}}}
    with pytest.raises(ConfigError, match=r"monitor\.usage\.week\.path: out takes in out/cache, which"):
        load_config(config("data", "out", monitor=watched))
    compared = {"decontaminate": {"evaluations": {"quiz": {"path": "out/**"}}}}
    with pytest.raises(ConfigError, match=r"ingest\.decontaminate\.evaluations\.quiz\.path: out/\*\* takes in"):
        load_config(config("data", "out", ingest=compared))


@pytest.mark.parametrize("path", ["data", "data/*/*/*.jsonl"])
def test_a_link_inside_a_source_that_leads_to_the_cache_is_refused(here: Path, path: str) -> None:
    cached = here / "out/cache/ingest-0/a.jsonl"
    cached.parent.mkdir(parents=True)
    cached.write_text('{"text": "a"}\n')
    (here / "data/old").symlink_to(here / "out/cache")
    source = SourceConfig(role="pool", path=path, lang="sw")
    with pytest.raises(ConfigError, match=r"^sources\.s\.path: \S+/data/old/ingest-0 takes in \S+/out/cache, which"):
        plan({"s": source}, IngestConfig(), str(here / "out"))
    assert not (here / "out/cache/inputs.json").exists()


def test_what_is_written_may_be_anywhere_if_nothing_is_read_there() -> None:
    refuse_written("path", ["/in/a.jsonl", "/in/x/*.jsonl"], ["/out", "s3://b/out"])
