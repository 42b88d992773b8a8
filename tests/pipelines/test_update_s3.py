"""The loop on object storage: registry and outputs on a real S3 API on loopback that fails now and then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_proxy import FaultyProxy, Rule
from loop import Loop
from object_store import SECRETS, Bucket
from trees import tree_bytes

from compass_ray.artifacts import digest


@pytest.fixture
def bucket(s3_endpoint: str, proxy: FaultyProxy, champion_loop: Loop) -> Bucket:
    """The registry with its champion, and the files of the loop."""
    made = Bucket(s3_endpoint, proxy.address)
    for root, prefix in ((champion_loop.output / "registry", "out/registry"), (champion_loop.files, "loop")):
        for path in root.glob("**/*" if prefix != "loop" else "*.jsonl"):
            if path.is_file():
                made.upload(path, f"{prefix}/{path.relative_to(root)}")
    return made


def attached(registry: dict[str, bytes], version: str) -> dict[str, bytes]:
    """Read what is attached to a version, each file checked against its receipt."""
    mark = f"/{version}/attached/"
    found = {key.partition(mark)[2]: data for key, data in registry.items() if mark in key}
    files = {name: data for name, data in found.items() if f"{name}.json" in found}
    assert len(found) == 2 * len(files), f"a file without a receipt, or a receipt without a file: {sorted(found)}"
    for name, data in files.items():
        assert json.loads(found[f"{name}.json"]) == {"bytes": len(data), "hash": digest(data)}
    return files


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.timeout(1800)
def test_update_and_gate_over_a_failing_store_promote_and_attach_what_they_found_and_show_no_secret(
    tmp_path: Path, champion_loop: Loop, bucket: Bucket, proxy: FaultyProxy, ray_folder: Path
) -> None:
    champion = champion_loop.registry.open("sw@champion").lineage.version
    raw = champion_loop.config("moved", "gate.margin=100", output="s3://corpus/out").unexpanded
    for source in (raw["sources"]["gold"], raw["sources"]["usage"], raw["monitor"]["usage"]["log"]):
        source["path"] = source["path"].replace(str(champion_loop.files), "s3://corpus/loop")
    config = tmp_path / "s3.yaml"
    config.write_text(yaml.safe_dump(raw))
    rules = [
        Rule("unavailable", every=7),
        Rule("slow_down", every=31),
        Rule("truncate", "GET", r"/corpus/", every=5),
        Rule("reset", "GET", every=11),
        Rule("reset", "PUT", every=9),
        Rule("lost_answer", "PUT", every=13),
    ]
    proxy.faults(*rules)
    outputs: dict[str, bytes] = {}

    def said(command: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "compass_ray", command, str(config), "--json"],
            env=bucket.environment(tmp_path, RAY_TMPDIR=str(ray_folder)), capture_output=True, text=True, timeout=800,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        outputs.update({f"{command}-out": done.stdout.encode(), f"{command}-err": done.stderr.encode()})
        return json.loads(done.stdout)

    updated = said("update")
    assert updated["registry"] == "s3://corpus/out/registry"
    candidate = updated["languages"]["sw"]["version"]
    gated = said("gate")["languages"]["sw"]
    assert (gated["outcome"], gated["promoted"], gated["candidate"]) == ("pass", True, candidate)
    assert all(rule.injected > 1 for rule in rules), rules

    written = bucket.tree_bytes("out/")
    registry = {key: data for key, data in written.items() if key.startswith("registry/")}
    (aliases,) = [json.loads(data) for key, data in registry.items() if key.endswith("aliases.json")]
    assert (aliases["champion"], aliases["previous"]) == (candidate, champion)
    (fisher,) = attached(registry, champion)
    assert fisher.startswith("fisher-")
    ((name, record),) = attached(registry, candidate).items()
    assert name == gated["attached"]
    assert json.loads(record)["outcome"] == "pass"
    outputs |= written | tree_bytes(ray_folder)
    for secret in SECRETS.values():
        assert [where for where, data in outputs.items() if secret.encode() in data] == []
