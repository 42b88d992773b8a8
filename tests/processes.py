"""Commands as real processes that tests can watch and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml
from conftest import clean_environment

from compass_ray import RunConfig


class Run:
    """A ``compass-ray`` command on a config, as a process of its own with a Ray of its own."""

    def __init__(self, command: str, config: RunConfig, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = Path(config.output)
        path = folder / f"{config.name}.yaml"
        path.write_text(yaml.safe_dump(config.unexpanded))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compass_ray", command, str(path)],
            env=clean_environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> None:
        _, errors = self.process.communicate(timeout=280)
        assert self.process.returncode == 0, errors

    def kill(self) -> list[int]:
        """SIGKILL the driver; the processes that it leaves behind."""
        left = descendants(self.process.pid)
        self.process.kill()
        self.process.communicate(timeout=30)
        return left

    def wait_for(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.poll() is None, f"the run ended before {what}: {self.process.communicate()[1]}"
            assert time.monotonic() < deadline, f"no {what} within 120 s"
            time.sleep(0.02)

    def receipts(self, stage: str) -> int:
        return len(list(self.output.glob(f"cache/{stage}-*/_progress/*.json")))

    def workers(self, kind: str) -> list[int]:
        """Process ids of this run's own Ray workers whose title holds ``kind``."""
        return [pid for pid in descendants(self.process.pid) if kind in title(pid)]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, frontier = [], [root]
    while frontier:
        parent = frontier.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found += children
        frontier += children
    return found


def end_workers(left: list[int]) -> None:
    """End what a killed driver has left of its Ray; its per-node agents would outlive it by some minutes."""
    for pid in left:
        if "ray::" in title(pid):
            os.kill(pid, signal.SIGKILL)
