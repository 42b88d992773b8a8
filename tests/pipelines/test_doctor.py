"""``doctor`` on configs whose data, models or store are not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compass_ray import RunConfig
from compass_ray.pipelines.doctor import Check, doctor

COMMIT = "c0ffee" * 6 + "c0ff"
Diagnosed = Callable[..., dict[str, Check]]


@pytest.fixture
def diagnosed(local_ray: None, fresh: Callable[..., RunConfig]) -> Diagnosed:
    def checks(*overrides: str) -> dict[str, Check]:
        found = doctor(fresh(*overrides).unexpanded)
        return {check.name: check for check in found}

    return checks


def test_a_run_in_order_has_no_failed_check_and_leaves_no_probe(diagnosed: Diagnosed, tmp_path: Path) -> None:
    checks = diagnosed()
    assert [name for name, check in checks.items() if check.state == "failed"] == []
    assert checks["resources"].found.startswith("1 node, 4 CPUs")
    assert checks["actors"].found.startswith("room for 4 of embed")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "name", "found"),
    [
        (["embed.model=./no-model"], "encoder", "embed.model: './no-model' is neither 'bundled' nor 'base' nor 'hash"),
        (["embed={model: base, base: ./none}"], "encoder", "embed.base: './none' is neither a folder that exists, nor"),
        (["sources.usage.path=nowhere.tsv"], "source usage", "sources.usage.path: no file matches nowhere.tsv"),
        (
            ["ingest.decontaminate={evaluations: {quiz: {path: nowhere.csv}}}"],
            "evaluation quiz",
            "ingest.decontaminate.evaluations.quiz.path: no file matches nowhere.csv",
        ),
        (
            ["monitor={usage: {log: {path: nowhere.jsonl, lang: sw}}}"],
            "usage log",
            "monitor.usage.log.path: no file matches nowhere.jsonl",
        ),
        (["embed.num_gpus=1"], "actors", "embed: one actor asks for num_cpus 1 and num_gpus 1, but the largest node"),
        (["cluster.device=gpu"], "faiss", "cluster.device: gpu needs a faiss with GPU support"),
    ],
)
def test_what_is_missing_fails_its_own_check_alone(
    diagnosed: Diagnosed, overrides: list[str], name: str, found: str
) -> None:
    checks = diagnosed(*overrides)
    assert [other for other, check in checks.items() if check.state == "failed"] == [name]
    assert checks[name].found.startswith(found)
    assert checks[name].advice


def test_the_base_of_the_adapters_is_looked_for_as_the_encoder(diagnosed: Diagnosed) -> None:
    checks = diagnosed("embed={model: base}")
    assert checks["encoder"].state == "good"
    assert checks["encoder"].found == checks["base model"].found


@pytest.mark.parametrize(("offline", "state"), [(False, "warning"), (True, "failed")])
def test_a_hub_model_that_is_not_in_the_cache_is_not_fetched(
    diagnosed: Diagnosed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, state: str
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    check = diagnosed("embed.model=owner/name", f"embed.revision={COMMIT}")["encoder"]
    assert check.state == state
    assert check.found == f"embed.model: owner/name at {COMMIT} is not in the hub's cache of this machine"


def test_an_object_store_is_written_and_left_empty_or_says_why_not(diagnosed: Diagnosed, s3: str) -> None:
    from compass_ray import storage

    assert diagnosed(f"output={s3}/out")["output"].found == f"{s3}/out: written, read back and deleted"
    assert storage.list_files(f"{s3}/**") == []
    refused = diagnosed("output=s3://no-such-bucket/out")["output"]
    assert refused.state == "failed"
    assert "no-such-bucket" in refused.found


def test_a_config_that_is_wrong_leaves_the_checks_of_the_machine(local_ray: None) -> None:
    checks = {check.name: check for check in doctor({"output": "x"})}
    assert checks["config"].state == "failed"
    assert "nothing to do: curate needs the section sample" in checks["config"].found
    assert checks["encoder"].state == checks["nodes"].state == "good"
    assert "output" not in checks
