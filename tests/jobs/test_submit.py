"""``ray start --head`` with token auth; a local command joins it, and a submitted job gives the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import clean_environment, demo_config, tree_bytes

from compass_ray import CurationRun

ROOT = Path(__file__).parent.parent.parent
RAY = str(Path(sys.executable).with_name("ray"))


def _free_ports(count: int) -> list[int]:
    """Ports below the ephemeral range, from which another Ray on this machine takes its own."""
    found: list[int] = []
    for port in random.sample(range(20000, 30000), 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free port between 20000 and 30000")


class Cluster:
    """A head node with token auth, in a home of its own."""

    def __init__(self, home: Path, temporary: str) -> None:
        self.port, self.dashboard, self.agent = _free_ports(3)
        self.environment = clean_environment(home, RAY_AUTH_MODE="token", RAY_TMPDIR=temporary)
        self.address = f"127.0.0.1:{self.port}"

    def call(self, *command: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    home = tmp_path / "home"
    home.mkdir()
    temporary = tempfile.mkdtemp(prefix="ray-")  # short, because Ray puts sockets below it
    head = Cluster(home, temporary)
    head.call(RAY, "get-auth-token", "--generate")
    (home / ".ray" / "auth_token").chmod(0o600)
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={head.port}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={head.dashboard}",
         f"--dashboard-agent-listen-port={head.agent}", "--num-cpus=2", "--disable-usage-stats"],
        env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ray runtime started" in line:
                break
        else:
            pytest.fail("ray start --head ended before the runtime was up")
        yield head
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.mark.slow
def test_joining_a_cluster_and_submitting_a_job_give_the_bytes_of_a_local_run(
    cluster: Cluster, tmp_path: Path, finished_demo: CurationRun
) -> None:
    expected = tree_bytes(f"{finished_demo.path}/selection")

    joined = tmp_path / "joined.yaml"
    joined.write_text(yaml.safe_dump(demo_config(tmp_path / "joined").unexpanded))
    done = cluster.call(
        sys.executable, "-m", "compass_ray", "curate", str(joined), "--address", cluster.address, "--json"
    )
    assert tree_bytes(f"{json.loads(done.stdout)['path']}/selection") == expected

    submitted = tmp_path / "submitted.yaml"
    submitted.write_text(yaml.safe_dump(demo_config(tmp_path / "submitted").unexpanded))
    dashboard = f"http://127.0.0.1:{cluster.dashboard}"
    job = cluster.call(
        RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", "--",
        sys.executable, "jobs/curate.py", str(submitted),
    )  # fmt: skip
    assert "succeeded" in job.stdout
    assert tree_bytes(tmp_path / "submitted" / "runs" / "demo" / "selection") == expected


def test_a_cluster_with_token_auth_refuses_a_stranger(cluster: Cluster, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    done = subprocess.run(
        [RAY, "job", "list", "--address", f"http://127.0.0.1:{cluster.dashboard}"],
        env=clean_environment(stranger, RAY_AUTH_MODE="disabled"),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "401" in done.stdout + done.stderr or "nauthor" in done.stdout + done.stderr
