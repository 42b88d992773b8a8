"""Object storage end to end: a subprocess reads and writes ``s3://`` on a real S3 API on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo import DEMO, demo_config
from faulty_proxy import FaultyProxy, Rule
from object_store import SECRETS, Bucket
from tiny_base import adapt_config
from trees import tree_bytes

from compass_ray import CurationRun, train_adapters
from compass_ray.artifacts import from_parquet


@pytest.fixture
def bucket(s3_endpoint: str, proxy: FaultyProxy) -> Bucket:
    """The demo's files in a bucket that subprocesses find behind the proxy."""
    made = Bucket(s3_endpoint, proxy.address)
    for path in (p for p in DEMO.rglob("*") if p.suffix in {".jsonl", ".csv", ".gz"}):
        made.upload(path, f"demo/{path.relative_to(DEMO)}")
    return made


def run_on(
    bucket: Bucket, folder: Path, command: str, raw: dict[str, Any], **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command whose config reads the demo files from the bucket."""
    for source in raw["sources"].values():
        source["path"] = source["path"].replace(str(DEMO), "s3://corpus/demo")
    config = folder / "s3.yaml"
    config.write_text(yaml.safe_dump(raw))
    return subprocess.run(
        [sys.executable, "-m", "compass_ray", command, str(config), "--json"],
        env=bucket.environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=280,
    )


def said(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.release
def test_a_run_over_a_failing_store_gives_the_same_bytes_as_on_disk_and_shows_no_secret(
    tmp_path: Path, finished_demo: CurationRun, bucket: Bucket, proxy: FaultyProxy, ray_folder: Path
) -> None:
    rules = [
        Rule("unavailable", every=7),
        Rule("slow_down", every=31),
        Rule("truncate", "GET", r"/corpus/", every=5),
        Rule("reset", "GET", every=11),
        Rule("reset", "PUT", every=9),
        Rule("lost_answer", "PUT", every=13),
    ]
    proxy.faults(*rules)
    done = run_on(bucket, tmp_path, "curate", demo_config("s3://corpus/out").unexpanded, RAY_TMPDIR=str(ray_folder))
    assert said(done)["path"] == "s3://corpus/out/runs/demo"
    assert all(rule.injected > 1 for rule in rules), rules

    written = bucket.tree_bytes("out/")
    of_one_run = {"run.json", "status.json"}  # times and memory
    on_disk = {name: data for name, data in tree_bytes(finished_demo.path).items() if name not in of_one_run}
    assert {name: written[f"runs/demo/{name}"] for name in on_disk} == on_disk
    assert not [key for key in written if "_progress" in key or ".check" in key]

    logs = tree_bytes(ray_folder)
    assert any("worker" in name for name in logs)
    outputs = {"stdout": done.stdout.encode(), "stderr": done.stderr.encode(), **written, **logs}
    for secret in SECRETS.values():
        assert [name for name, data in outputs.items() if secret.encode() in data] == []


def test_an_output_that_may_not_be_written_ends_a_run_before_it_starts(
    tmp_path: Path, bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.faults(Rule("denied", "PUT"))
    started = time.monotonic()
    done = run_on(bucket, tmp_path, "curate", demo_config("s3://corpus/out").unexpanded)
    assert time.monotonic() - started < 60, "no Ray is needed to find this out"
    assert done.returncode == 4, done.stderr
    assert "error: write s3://corpus/out/" in done.stderr
    assert "answered AccessDenied; check that these credentials may write in bucket 'corpus'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_that_may_not_be_listed_ends_a_run_before_it_starts(
    tmp_path: Path, bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.faults(Rule("denied", "GET", "list-type=2"))
    done = run_on(bucket, tmp_path, "curate", demo_config("s3://corpus/out").unexpanded)
    assert done.returncode == 4, done.stderr
    assert "error: list s3://corpus/demo/" in done.stderr
    assert "answered AccessDenied; check that these credentials may list in bucket 'corpus'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_source_whose_store_fails_while_it_is_read_is_an_error_and_not_a_bad_file(
    tmp_path: Path, bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.faults(Rule("truncate", "GET", r"/demo/pool/sw\.jsonl", times=1), Rule("internal_error", "GET", "pool/sw"))
    done = run_on(bucket, tmp_path, "curate", demo_config("s3://corpus/out").unexpanded, AWS_MAX_ATTEMPTS="2")
    assert done.returncode == 4, done.stderr
    assert "error: read s3://corpus/demo/pool/sw" in done.stderr
    assert "answered InternalError to the last of 2 attempts; run again when it has recovered" in done.stderr
    assert "Traceback" not in done.stderr
    assert len([path for _, path, _ in proxy.requests if "pool/sw.jsonl" in path]) <= 4, "Ray must not try again"


@pytest.mark.release
@pytest.mark.usefixtures("local_ray")
def test_adapters_trained_and_registered_on_object_storage_have_the_weights_of_those_on_disk(
    tmp_path: Path, tiny_base: Path, bucket: Bucket
) -> None:
    one = "adapt.languages=[sw]"
    on_disk = train_adapters(adapt_config(tmp_path / "out", tiny_base, one))
    done = run_on(bucket, tmp_path, "adapt", adapt_config("s3://corpus/out", tiny_base, one).unexpanded)
    assert said(done)["registry"] == "s3://corpus/out/registry"
    curve = from_parquet(bucket.tree_bytes("out/runs/adapted/adapt/sw/")["curve.parquet"])
    assert curve["loss"].to_pylist() == on_disk.curve("sw")["loss"].to_pylist()
    (weights,) = tmp_path.glob("out/registry/*/sw/*/adapter_model.safetensors")
    registered = bucket.tree_bytes("out/registry/")
    assert [data for key, data in registered.items() if key.endswith(weights.name)] == [weights.read_bytes()]
    assert not [key for key in bucket.tree_bytes("out/cache/") if "_training" in key], "checkpoints are cleared"
