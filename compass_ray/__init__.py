"""compass_ray: decide which multilingual data an LLM should be fine-tuned on, and fine-tune it, at cluster scale.

    >>> from compass_ray import curate, gate_candidates, load_config, monitor_usage, train_adapters, update_adapters
    >>> run = curate(load_config("curate.yaml"))
    >>> run.gaps, run.certificate, run.selection("sw")
    >>> train_adapters(load_config("curate.yaml")).scores("sw")
    >>> monitor_usage(load_config("curate.yaml")).verdicts
    >>> update_adapters(load_config("curate.yaml")).languages
    >>> gate_candidates(load_config("curate.yaml")).outcomes

Importing the package loads neither ray nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compass_ray.version import __version__

if TYPE_CHECKING:
    from compass_ray.config import RunConfig, load_config
    from compass_ray.errors import CompassError
    from compass_ray.pipelines.adapt import train_adapters
    from compass_ray.pipelines.adapted import AdaptedRun
    from compass_ray.pipelines.curate import curate
    from compass_ray.pipelines.gate import gate_candidates
    from compass_ray.pipelines.gated import GatedRun
    from compass_ray.pipelines.monitor import monitor_usage
    from compass_ray.pipelines.monitored import MonitoredRun
    from compass_ray.pipelines.run import CurationRun
    from compass_ray.pipelines.update import update_adapters
    from compass_ray.pipelines.updated import UpdatedRun

__all__ = [
    "AdaptedRun",
    "CompassError",
    "CurationRun",
    "GatedRun",
    "MonitoredRun",
    "RunConfig",
    "UpdatedRun",
    "__version__",
    "curate",
    "gate_candidates",
    "load_config",
    "monitor_usage",
    "train_adapters",
    "update_adapters",
]

_HOME = {
    "AdaptedRun": "compass_ray.pipelines.adapted",
    "CompassError": "compass_ray.errors",
    "CurationRun": "compass_ray.pipelines.run",
    "GatedRun": "compass_ray.pipelines.gated",
    "MonitoredRun": "compass_ray.pipelines.monitored",
    "RunConfig": "compass_ray.config",
    "UpdatedRun": "compass_ray.pipelines.updated",
    "curate": "compass_ray.pipelines.curate",
    "gate_candidates": "compass_ray.pipelines.gate",
    "load_config": "compass_ray.config",
    "monitor_usage": "compass_ray.pipelines.monitor",
    "train_adapters": "compass_ray.pipelines.adapt",
    "update_adapters": "compass_ray.pipelines.update",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'compass_ray' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
