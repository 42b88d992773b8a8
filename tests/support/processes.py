"""Commands as real processes that tests can watch and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from compass_ray import RunConfig
from compass_ray.runtime.memory import process_tree


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a subprocess that must not see this process's Ray or the user's home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1", **variables}


class Run:
    """A ``compass-ray`` command on a config, as a process of its own, with a Ray of its own or on a cluster."""

    def __init__(
        self,
        command: str,
        config: RunConfig,
        folder: Path,
        variables: Mapping[str, str] | None = None,
        watched: Callable[[], list[int]] | None = None,
    ) -> None:
        """``variables`` name a cluster and ``watched`` lists its processes; without them, Ray is the run's child."""
        folder.mkdir(parents=True, exist_ok=True)
        self.output = Path(config.output)
        self.name = config.name
        path = folder / f"{config.name}.yaml"
        path.write_text(yaml.safe_dump(config.unexpanded))
        self.started = time.monotonic()
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in what a shell script starts with `&`: it would be
            signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by the command, too
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compass_ray", command, str(path)],
            env=clean_environment(folder, **(variables or {})),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal sends Ctrl-C to a process group
        )
        self.processes = watched or (lambda: descendants(self.process.pid))

    def finish(self, code: int = 0, timeout_s: float = 280) -> str:
        """Wait for the end; what was written to stderr."""
        _, errors = self.process.communicate(timeout=timeout_s)
        self.seconds = time.monotonic() - self.started
        assert self.process.returncode == code, errors
        return errors

    def kill(self) -> list[int]:
        """SIGKILL the driver; the processes that it leaves behind."""
        left = descendants(self.process.pid)
        self.process.kill()
        self.process.communicate(timeout=30)
        return left

    def wait_for(self, reached: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
        """Wait until something is true, and return it."""
        deadline = time.monotonic() + timeout_s
        while not (found := reached()):
            assert self.process.poll() is None, f"the run ended before {what}: {self.process.communicate()[1]}"
            assert time.monotonic() < deadline, f"no {what} within {timeout_s:g} s"
            time.sleep(0.02)
        return found

    def receipts(self, stage: str) -> int:
        return len(list(self.output.glob(f"cache/{stage}-*/_progress/*.json")))

    def is_complete(self, stage: str) -> bool:
        return bool(list(self.output.glob(f"cache/{stage}-*/manifest.json")))

    def workers(self, kind: str) -> list[int]:
        """Process ids of this run's Ray workers whose title holds ``kind``."""
        return [pid for pid in self.processes() if kind in title(pid)]


def title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stats() -> dict[int, list[str]]:
    """By process, the fields of ``/proc/<pid>/stat`` from the third on: state, parent, group, session; no zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = fields
    return found


def members(session: int) -> list[int]:
    """Processes of a session."""
    return [pid for pid, fields in _stats().items() if int(fields[3]) == session]


def descendants(root: int) -> list[int]:
    return process_tree(root)[1:]


def end_workers(left: list[int]) -> None:
    """End what a killed driver has left of its Ray; its per-node agents would outlive it by some minutes."""
    for pid in left:
        if "ray::" in title(pid):
            os.kill(pid, signal.SIGKILL)
