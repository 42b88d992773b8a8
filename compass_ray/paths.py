"""Where things lie in an output folder: artifacts in ``cache/``, runs in ``runs/``, adapters in ``registry/``."""

from __future__ import annotations

from compass_ray import storage

_RUNS = "runs"


def cache_path(output: str, *names: str) -> str:
    """Locate the cache of artifacts, or something in it."""
    return storage.join(output, "cache", *names)


def runs_path(output: str, *names: str) -> str:
    """Locate the folder of runs, or something in it: a run by its name, a file of one."""
    return storage.join(output, _RUNS, *names)


def registry_path(output: str) -> str:
    """Locate the registry of adapters, where a config names no other."""
    return storage.join(output, "registry")


def output_of(run: str) -> str:
    """Find the output folder that a run lies in."""
    return run.rsplit(f"/{_RUNS}/", 1)[0]
