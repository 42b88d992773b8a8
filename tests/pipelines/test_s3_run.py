"""Object storage end to end: a subprocess reads and writes ``s3://`` on a real S3 API on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DEMO, adapt_config, demo_config, tree_bytes
from object_store import SECRETS, Bucket

from compass_ray import CurationRun, train_adapters
from compass_ray.artifacts import from_parquet


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    """The demo's files in a bucket."""
    made = Bucket(s3_endpoint)
    for path in (p for p in DEMO.rglob("*") if p.suffix in {".jsonl", ".csv", ".gz"}):
        made.upload(path, f"demo/{path.relative_to(DEMO)}")
    return made


def run_on(bucket: Bucket, folder: Path, command: str, raw: dict[str, Any]) -> Any:
    """What a command prints as JSON; the demo files of its config are read from the bucket, and no secret is shown."""
    for source in raw["sources"].values():
        source["path"] = source["path"].replace(str(DEMO), "s3://corpus/demo")
    config = folder / "s3.yaml"
    config.write_text(yaml.safe_dump(raw))
    done = subprocess.run(
        [sys.executable, "-m", "compass_ray", command, str(config), "--json"],
        env=bucket.environment(folder),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    written = b"".join(bucket.tree_bytes("out/runs/").values())
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
        assert secret.encode() not in written
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_run_on_object_storage_gives_the_same_selection_as_on_disk(
    tmp_path: Path, finished_demo: CurationRun, bucket: Bucket
) -> None:
    said = run_on(bucket, tmp_path, "curate", demo_config("s3://corpus/out").unexpanded)
    assert said["path"] == "s3://corpus/out/runs/demo"
    assert bucket.tree_bytes("out/runs/demo/selection/") == tree_bytes(f"{finished_demo.path}/selection")


@pytest.mark.release
@pytest.mark.usefixtures("local_ray")
def test_adapters_trained_and_registered_on_object_storage_have_the_weights_of_those_on_disk(
    tmp_path: Path, tiny_base: Path, bucket: Bucket
) -> None:
    one = "adapt.languages=[sw]"
    on_disk = train_adapters(adapt_config(tmp_path / "out", tiny_base, one))
    said = run_on(bucket, tmp_path, "adapt", adapt_config("s3://corpus/out", tiny_base, one).unexpanded)
    assert said["registry"] == "s3://corpus/out/registry"
    curve = from_parquet(bucket.tree_bytes("out/runs/adapted/adapt/sw/")["curve.parquet"])
    assert curve["loss"].to_pylist() == on_disk.curve("sw")["loss"].to_pylist()
    (weights,) = tmp_path.glob("out/registry/*/sw/*/adapter_model.safetensors")
    registered = bucket.tree_bytes("out/registry/")
    assert [data for key, data in registered.items() if key.endswith(weights.name)] == [weights.read_bytes()]
    assert not [key for key in bucket.tree_bytes("out/cache/") if "_training" in key], "checkpoints are cleared"
