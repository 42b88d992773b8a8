"""What is kept of a stage that has ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageRecord:
    """What ``run.json`` says of a stage.

    ``peak_bytes`` is the highest proportional set size of the driver and all that it started, a local Ray among them,
    and ``driver_peak_bytes`` that of the driver alone; see :mod:`~compass_ray.runtime.memory`.
    """

    stage: str
    artifact: str
    rows: int
    bytes: int
    seconds: float
    reused: bool
    resumed_keys: int
    peak_bytes: int
    driver_peak_bytes: int
