"""Object storage end to end: a subprocess reads and writes ``s3://`` on a real S3 API on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import boto3
import yaml
from conftest import DEMO, clean_environment, demo_config, tree_bytes
from moto.server import ThreadedMotoServer

from compass_ray import CurationRun


def test_a_run_on_object_storage_gives_the_same_selection_as_on_disk(
    tmp_path: Path, finished_demo: CurationRun
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        _run_on(f"http://{host}:{port}", tmp_path, finished_demo)
    finally:
        server.stop()


def _run_on(endpoint: str, tmp_path: Path, finished_demo: CurationRun) -> None:
    secrets = {"AWS_ACCESS_KEY_ID": "AKIATESTONLY", "AWS_SECRET_ACCESS_KEY": "s3cr3t-for-tests"}
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=secrets["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=secrets["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket="corpus")
    for path in (p for p in DEMO.rglob("*") if p.suffix in {".jsonl", ".csv", ".gz"}):
        client.upload_file(str(path), "corpus", f"demo/{path.relative_to(DEMO)}")
    raw = demo_config("s3://corpus/out").unexpanded
    for source in raw["sources"].values():
        source["path"] = source["path"].replace(str(DEMO), "s3://corpus/demo")
    config = tmp_path / "s3.yaml"
    config.write_text(yaml.safe_dump(raw))
    environment = clean_environment(tmp_path, AWS_ENDPOINT_URL=endpoint, AWS_DEFAULT_REGION="us-east-1", **secrets)
    done = subprocess.run(
        [sys.executable, "-m", "compass_ray", "curate", str(config), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "s3://corpus/out/runs/demo"
    expected = tree_bytes(f"{finished_demo.path}/selection")
    listed = client.list_objects_v2(Bucket="corpus", Prefix="out/runs/demo/selection/")["Contents"]
    found = {
        item["Key"].removeprefix("out/runs/demo/selection/"): client.get_object(Bucket="corpus", Key=item["Key"])[
            "Body"
        ].read()
        for item in listed
    }
    assert found == expected
    record = client.get_object(Bucket="corpus", Key="out/runs/demo/run.json")["Body"].read().decode()
    for secret in secrets.values():
        assert secret not in record + done.stdout + done.stderr
