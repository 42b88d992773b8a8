"""``cluster_configs/local``: several nodes on this machine, and nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest
from clusters import Cluster, call_local, cluster_of
from processes import members


def test_down_leaves_neither_process_nor_file(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with cluster_of(folder, "--workers", "1", "--cpus", "3") as cluster:
        assert list(cluster.sessions) == ["head", "worker-1"]
        assert all(members(session) for session in cluster.sessions.values())
        assert stat.S_IMODE((folder / "auth_token").stat().st_mode) == 0o600
        temporary = Path(json.loads((folder / "cluster.json").read_text())["temporary"])
        assert temporary.exists()
        again = call_local("up", folder)
        assert again.returncode == 1
        assert again.stderr.startswith(f"error: {folder} holds a cluster")
    assert not folder.exists()
    assert not temporary.exists()
    nothing = call_local("down", folder)
    assert (nothing.returncode, nothing.stderr.partition(" that")[0]) == (1, f"error: {folder} holds no cluster")


@pytest.mark.slow
def test_a_start_that_fails_half_way_ends_what_it_has_started(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    (folder / "worker-1.log").mkdir(parents=True)  # the second node has nowhere to write
    done = call_local("up", folder, "--workers", "1")
    assert done.returncode == 1
    assert "IsADirectoryError" in done.stderr
    assert done.stdout == ""
    assert not (folder / "cluster.json").exists()
    assert not (folder / "auth_token").exists()


@pytest.mark.slow
def test_logs_outlive_a_cluster_on_request_even_if_a_node_was_killed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    os.kill(cluster.sessions["head"], signal.SIGKILL)
    done = call_local("down", cluster.folder, "--keep-logs")
    assert done.returncode == 0, done.stderr
    assert cluster.processes() == []
    logs = cluster.folder / "logs"
    assert [entry.name for entry in cluster.folder.iterdir()] == ["logs"]
    assert "Ray runtime started" in (logs / "head.log").read_text()
    assert list(logs.glob("session_2*/gcs_server.out"))
