"""Where the numbers of a training go while it runs: Ray's metrics, and a tracker of the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from compass_ray.adapt.config import TrackerConfig
from compass_ray.errors import ResourcesMissing

_GAUGES = {
    "loss": ("compass_train_loss", "Mean loss of a trained token, in nats"),
    "tokens_per_s": ("compass_train_tokens_per_second", "Tokens of all workers"),
    "memory_bytes": ("compass_train_memory_bytes", "Peak memory of the first worker"),
    "mfu": ("compass_train_mfu", "Model FLOPs utilisation, 0 to 1"),
}


class Tracker(Protocol):
    """Takes numbers by update."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one update."""

    def close(self) -> None:
        """Write what is left."""


class NoTracker:
    """Keeps nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoardTracker:
    """Event files that TensorBoard reads, a folder for each training."""

    def __init__(self, folder: str) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(folder)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class MlflowTracker:
    """One MLflow run for each training."""

    def __init__(self, uri: str, experiment: str, name: str) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(experiment)
        identifier = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run = self._client.create_run(identifier, run_name=name).info.run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


def check_tracker(config: TrackerConfig) -> None:
    """Fail before any work if the tracker's package is not there.

    Raises
    ------
    ResourcesMissing
    """
    from importlib.util import find_spec

    package = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}.get(config.kind)
    if package and find_spec(package) is None:
        raise ResourcesMissing(f"adapt.tracker: {config.kind} needs {package}: pip install 'compass_ray[track]'")


def open_tracker(config: TrackerConfig, name: str) -> Tracker:
    """Open the configured tracker, for a training called ``name``."""
    if config.kind == "tensorboard":
        return TensorBoardTracker(f"{config.uri}/{name}")
    if config.kind == "mlflow":
        return MlflowTracker(str(config.uri), config.experiment, name)
    return NoTracker()


class Gauges:
    """The newest numbers of one training as Ray metrics, tagged with its language alone."""

    def __init__(self, lang: str) -> None:
        from ray.util.metrics import Gauge

        self._gauges: dict[str, Any] = {}
        for name, (metric, description) in _GAUGES.items():
            gauge = Gauge(metric, description=description, tag_keys=("lang",))
            gauge.set_default_tags({"lang": re.sub(r"[^A-Za-z0-9-]", "_", lang)})
            self._gauges[name] = gauge

    def log(self, metrics: Mapping[str, float]) -> None:
        """Show these numbers; those without a gauge are left out."""
        for name, gauge in self._gauges.items():
            if name in metrics:
                gauge.set(metrics[name])
