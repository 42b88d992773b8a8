"""A cluster with token auth: a local command joins it, and submitted jobs give the same bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from clusters import RAY, Cluster, cluster_of
from demo import demo_config
from trees import tree_bytes

from compass_ray import CurationRun


@pytest.fixture
def cluster(cluster_variables: None, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(tmp_path / "cluster") as running:
        yield running


@pytest.mark.slow
@pytest.mark.release
def test_joining_a_cluster_and_submitting_a_job_give_the_bytes_of_a_local_run_and_another_job_reuses_them(
    cluster: Cluster, tmp_path: Path, finished_demo: CurationRun
) -> None:
    expected = tree_bytes(f"{finished_demo.path}/selection")

    def config(output: str, *overrides: str) -> str:
        path = tmp_path / "wanted.yaml"
        path.write_text(yaml.safe_dump(demo_config(tmp_path / output, *overrides).unexpanded))
        return str(path)

    compass = (sys.executable, "-m", "compass_ray")
    done = cluster.call(*compass, "curate", config("joined"), "--json")
    assert tree_bytes(f"{json.loads(done.stdout)['path']}/selection") == expected

    job = cluster.call(RAY, "job", "submit", "--working-dir", ".", "--", "python", "jobs/curate.py", config("script"))
    assert "succeeded" in job.stdout
    assert tree_bytes(tmp_path / "script" / "runs" / "demo" / "selection") == expected

    done = cluster.call(*compass, "submit", "curate", config("script", "name=again"))
    result = json.loads(done.stdout.splitlines()[-1])
    assert all(stage["reused"] for stage in result["stages"])
    assert result["path"] == f"{tmp_path}/script/runs/again"
    assert result["certificate"] == finished_demo.certificate
