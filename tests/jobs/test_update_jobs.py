"""Update and gate as jobs of a cluster with token auth: what they print, and the exit codes that a scheduler gets."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from clusters import RAY, Cluster, cluster_of
from loop import Loop, states

COMPASS = (sys.executable, "-m", "compass_ray")
PATIENCE = 600


@pytest.fixture
def cluster(cluster_variables: None, tmp_path: Path) -> Iterator[Cluster]:
    with cluster_of(tmp_path / "cluster") as running:
        yield running


@pytest.mark.slow
@pytest.mark.release
@pytest.mark.timeout(1800)
def test_jobs_update_and_refuse_with_the_exit_codes_of_the_commands(
    loop: Loop, cluster: Cluster, tmp_path: Path
) -> None:
    champion = loop.registry.open("sw@champion")
    config = loop.config("moved", "update.method=naive", "adapt.training.learning_rate=1.0")
    path = tmp_path / "watch.yaml"
    path.write_text(yaml.safe_dump(config.unexpanded))

    done = cluster.call(*COMPASS, "submit", "update", str(path), timeout=PATIENCE)
    candidate = json.loads(done.stdout.splitlines()[-1])["languages"]["sw"]["version"]
    made = states(loop)
    assert made == {champion.lineage.version: ["champion"], candidate: ["candidate"]}
    script = ("--working-dir", ".", "--", "python", "jobs/update.py", str(path))
    done = cluster.call(RAY, "job", "submit", *script, timeout=PATIENCE)
    assert "succeeded" in done.stdout
    assert f'"versions": {{"sw": "{candidate}"}}' in done.stdout, "a second job finds the first one's work"
    assert states(loop) == made

    refused = cluster.call(*COMPASS, "submit", "gate", str(path), timeout=PATIENCE, code=6)
    outputs = [refused, cluster.call(*COMPASS, "submit", "jobs/gate.py", json.dumps(config.unexpanded), code=6)]
    assert all("stays champion" in done.stdout + done.stderr for done in outputs)
    wrong = ("--set", "monitor.reference=run")
    outputs.append(cluster.call(*COMPASS, "submit", "update", str(path), *wrong, code=2))
    token = (tmp_path / "cluster" / "auth_token").read_text().strip()
    assert token
    assert not [done.args for done in outputs if token in done.stdout + done.stderr]
    assert states(loop) == made
    assert loop.registry.open("sw@champion") == champion
