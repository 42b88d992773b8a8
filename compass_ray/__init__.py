"""compass_ray: decide which multilingual data an LLM should be fine-tuned on, and fine-tune it, at cluster scale.

    >>> from compass_ray import curate, load_config, monitor_usage, train_adapters
    >>> run = curate(load_config("curate.yaml"))
    >>> run.gaps, run.certificate, run.selection("sw")
    >>> train_adapters(load_config("curate.yaml")).scores("sw")
    >>> monitor_usage(load_config("curate.yaml")).verdicts

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
    from compass_ray.pipelines.monitor import monitor_usage
    from compass_ray.pipelines.monitored import MonitoredRun
    from compass_ray.pipelines.run import CurationRun

__all__ = [
    "AdaptedRun",
    "CompassError",
    "CurationRun",
    "MonitoredRun",
    "RunConfig",
    "__version__",
    "curate",
    "load_config",
    "monitor_usage",
    "train_adapters",
]

_HOME = {
    "AdaptedRun": "compass_ray.pipelines.adapted",
    "CompassError": "compass_ray.errors",
    "CurationRun": "compass_ray.pipelines.run",
    "MonitoredRun": "compass_ray.pipelines.monitored",
    "RunConfig": "compass_ray.config",
    "curate": "compass_ray.pipelines.curate",
    "load_config": "compass_ray.config",
    "monitor_usage": "compass_ray.pipelines.monitor",
    "train_adapters": "compass_ray.pipelines.adapt",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'compass_ray' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
