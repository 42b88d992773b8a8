"""Where a run executes: ``ray`` in the config. All of it is execution, none of it identity."""

from __future__ import annotations

from pydantic import Field

from compass_ray.configbase import Config


class RayConfig(Config):
    """The cluster to join, or how large a local one may be."""

    address: str | None = Field(
        default=None, description="Cluster to join; else RAY_ADDRESS, else a running `ray start`, else a local Ray"
    )
    wait_minutes: float | None = Field(
        default=None,
        gt=0,
        description="How long a run waits for room while nothing of it runs; 30 on a cluster, 2 on a local Ray",
    )
    num_cpus: int | None = Field(default=None, ge=1, description="CPUs of a local Ray; all of the machine if not given")
