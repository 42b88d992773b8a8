"""Ray clusters of several nodes on this machine, started and ended as a user does."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import clean_environment, members, title

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "cluster_configs" / "local"
RAY = str(Path(sys.executable).with_name("ray"))


def call_local(script: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``cluster_configs/local/up`` or ``down`` of a cluster in a folder."""
    command = [sys.executable, str(LOCAL / script), "--dir", str(folder), *options]
    return subprocess.run(
        command, env=clean_environment(folder.parent), capture_output=True, text=True, timeout=240, check=False
    )


class Cluster:
    """A cluster that is up."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        done = call_local("up", folder, *options)
        assert done.returncode == 0, done.stderr
        exports = [shlex.split(line) for line in done.stdout.splitlines()]
        assert {line[0] for line in exports} == {"export"}
        self.variables = dict(line[1].split("=", 1) for line in exports)
        state = json.loads((folder / "cluster.json").read_text())
        self.sessions: dict[str, int] = {node["role"]: node["pid"] for node in state["nodes"]}

    def call(self, *command: str, timeout: int = 240, code: int = 0) -> subprocess.CompletedProcess[str]:
        """A command of a user who has evaluated what ``up`` prints, and how it has to end."""
        environment = clean_environment(self.folder.parent, **self.variables)
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == code, f"{command}: {done.stdout}\n{done.stderr}"
        return done

    def processes(self) -> list[int]:
        return [pid for session in self.sessions.values() for pid in members(session)]

    def worker_with(self, kind: str) -> str | None:
        """A worker node on which a process runs whose title holds ``kind``."""
        for role, session in self.sessions.items():
            if role != "head" and any(kind in title(pid) for pid in members(session)):
                return role
        return None

    def lose(self, role: str) -> None:
        """Kill all of a node at once, as a power cut does."""
        for pid in members(self.sessions[role]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # died with its raylet
                continue


@contextmanager
def cluster_of(folder: Path, *options: str) -> Iterator[Cluster]:
    """A cluster that is ended with everything it has started."""
    cluster = Cluster(folder, *options)
    try:
        yield cluster
    finally:
        done = call_local("down", folder)
        assert done.returncode == 0, done.stderr
        assert cluster.processes() == []
