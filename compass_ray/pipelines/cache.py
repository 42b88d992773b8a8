"""The cache of an output folder: which artifacts there are, which runs use them, and removing those that none uses.

Kept are the artifacts of every run in ``runs/`` (finished, or begun by its ``status.json``) and everything younger than
a given age: another process may be writing it. The registry keeps copies of what its versions refer to, so nothing
in it depends on the cache.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from compass_ray import paths, storage
from compass_ray.runtime.status import read_status


@dataclass(frozen=True)
class Cached:
    """One artifact folder of a cache.

    Attributes
    ----------
    url : str
        ``<output>/cache/<stage>-<fingerprint>``.
    bytes, files : int
        Size and number of all its files.
    complete : bool
        Whether it has a manifest.
    changed : datetime
        When its newest file was written.
    runs : tuple of str
        Runs that use it.
    """

    url: str
    bytes: int
    files: int
    complete: bool
    changed: datetime
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """``<stage>-<fingerprint>``."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def age_s(self) -> float:
        """Seconds since it was last written to."""
        return (datetime.now(UTC) - self.changed).total_seconds()


def list_cached(output: str) -> list[Cached]:
    """List all artifacts below ``<output>/cache``, by name.

    Cost: one listing of the cache, and one small file for each run.
    """
    output = storage.absolute(output)
    root = paths.cache_path(output)
    files: defaultdict[str, list[storage.FileStat]] = defaultdict(list)
    for file in storage.list_files(storage.join(storage.literal(root), "*", "**")):
        files[file.url.removeprefix(f"{root}/").partition("/")[0]].append(file)
    used = _used(output)
    return [
        Cached(
            storage.join(root, name),
            sum(file.size for file in members),
            len(members),
            any(file.url == storage.join(root, name, "manifest.json") for file in members),
            datetime.fromtimestamp(max(file.modified for file in members), UTC),
            tuple(sorted(used[name])),
        )
        for name, members in sorted(files.items())
    ]


def unused(artifacts: Sequence[Cached], older_than_s: float) -> list[Cached]:
    """List artifacts that no run uses and nobody has written to for so long."""
    return [one for one in artifacts if not one.runs and one.age_s > older_than_s]


def remove(artifact: Cached) -> None:
    """Delete an artifact; its manifest goes first, so that it is never taken for whole."""
    storage.delete(storage.join(artifact.url, "manifest.json"))
    storage.delete_tree(artifact.url)


_FOLDERS = ("monitor", "update", "gate")
"""Of commands that have one of their own in a run's, and their status there."""

_RECORDS = ("run.json", "adapt.json", "monitor/drift.json", "update/update.json", "update/*/run.json", "gate/gate.json")


def _used(output: str) -> defaultdict[str, set[str]]:
    """List the runs that use each artifact."""
    used: defaultdict[str, set[str]] = defaultdict(set)
    root = paths.runs_path(output)
    for name in _RECORDS:
        for file in storage.list_files(storage.join(storage.literal(root), "*", name)):
            for artifact in _named_in(json.loads(storage.read_bytes(file.url))):
                used[artifact].add(file.url.removeprefix(f"{root}/").partition("/")[0])
    for name in ("status.json", *(f"{folder}/status.json" for folder in _FOLDERS)):
        for file in storage.list_files(storage.join(storage.literal(root), "*", name)):
            for artifact in read_status(file.url.rsplit("/", 1)[0]).artifacts:
                used[artifact].add(file.url.removeprefix(f"{root}/").partition("/")[0])
    return used


def _named_in(record: dict[str, Any]) -> Iterator[str]:
    for stage in record["stages"].values():
        yield stage["artifact"] if isinstance(stage, dict) else stage
    if "codebook" in record:  # a frozen one is of no stage
        yield record["codebook"].rsplit("/", 1)[-1]
