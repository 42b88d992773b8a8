"""How much memory a run takes: proportional set size over a tree of processes.

Ray's workers map one shared object store. Resident size would count it once for every one of them; proportional size
(PSS) divides each shared page among those that map it, so the sum over a tree is what the machine really gave.
"""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def process_tree(root: int) -> list[int]:
    """List the ids of a process and all its descendants, at this moment."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir() if _PROC.is_dir() else ():
        if entry.name.isdigit() and (stat := _read(entry / "stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for process in found:  # grows while it is walked
        found += children.get(process, [])
    return found


def pss_bytes(process: int) -> int:
    """Read the proportional set size of one process. 0 if it has ended, or belongs to somebody else."""
    for line in _read(_PROC / str(process) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class PeakMemory:
    """The highest memory of this process and of all it has started, a local Ray among them.

    On a cluster that is joined, workers are not descendants of the driver, and what is measured is the driver. All is
    zero where the kernel does not tell (not Linux).
    """

    def __init__(self) -> None:
        self._peak = 0
        self._driver = 0

    def look(self) -> None:
        """Take one measurement. Cost: some milliseconds for each GiB that is mapped."""
        mine = os.getpid()
        driver = pss_bytes(mine)
        total = driver + sum(pss_bytes(process) for process in process_tree(mine) if process != mine)
        self._driver, self._peak = max(self._driver, driver), max(self._peak, total)

    def take(self) -> tuple[int, int]:
        """Take the peaks in bytes since the last call. They are of the whole tree, and of the driver alone."""
        self.look()
        taken = self._peak, self._driver
        self._peak = self._driver = 0
        return taken


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
