"""How the codebook is made: ``cluster`` in the config."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from compass_ray.configbase import EXECUTION, Config


class ClusterConfig(Config):
    """Spherical k-means, or a codebook that exists."""

    n_clusters: int = Field(default=100, ge=2, description="Clusters; the literature on this method uses 80-120")
    codebook: Annotated[str, EXECUTION] = Field(
        default="fit", description="'fit', or the folder of a codebook artifact to use as it is"
    )
    max_iterations: int = Field(default=100, ge=1, description="Lloyd passes, at most")
    tol: float = Field(default=1e-4, ge=0, description="Stop when the objective changes by less than this fraction")
    fit_rows: int = Field(
        default=1_000_000,
        ge=100,
        description="Rows that the fit holds in memory over all actors (4·d bytes each), about",
    )
    outlier_quantile: float = Field(
        default=0.99, gt=0.5, lt=1, description="Farther than this quantile of target and current rows is an outlier"
    )
    outlier_min_rows: int = Field(default=200, ge=1, description="Below this, a language uses the global quantile")
    actors: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="Actors that hold the rows; one per CPU if not given"
    )
