"""How the codebook is made: ``cluster`` in the config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from compass_ray.configbase import EXECUTION, Config


def _number_or_auto(value: Any) -> Any:
    """Read a number or ``auto``, with one message for each mistake. A union would give one for each of its members."""
    if value == "auto":
        return value
    if isinstance(value, bool) or not str(value).lstrip("+-").isdigit():
        raise PydanticCustomError("int_or_auto", "Input should be a whole number or 'auto'")
    if int(value) < 2:
        raise PydanticCustomError("int_or_auto", "Input should be greater than or equal to 2")
    return int(value)


class SweepConfig(Config):
    """What ``n_clusters: auto`` tries."""

    clusters: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        default=(10, 15, 20, 30, 50, 70, 100, 150, 200), min_length=1, description="Numbers of clusters to try"
    )
    rows: int = Field(default=20_000, ge=100, description="Rows that each of them is tried on, about")


class HdbscanConfig(Config):
    """Clusters as dense regions, found in a bounded sample; their medoids are the centroids."""

    rows: int = Field(default=10_000, ge=100, description="Rows of the sample, about; time grows with their square")
    min_cluster_size: int = Field(default=5, ge=2, description="Rows of the sample that make a cluster, at least")
    min_samples: int | None = Field(
        default=None, ge=1, description="Neighbours that make a row dense; as min_cluster_size if not given"
    )
    components: int = Field(default=15, ge=2, description="Principal axes in which density is measured")


class ClusterConfig(Config):
    """Spherical k-means, dense regions, or a codebook that exists."""

    method: Literal["kmeans", "hdbscan"] = Field(
        default="kmeans",
        description="How the codebook is fitted; hdbscan finds the number of clusters itself and reads no n_clusters",
    )
    n_clusters: Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)] = Field(
        default=100, description="Clusters; the literature on this method uses 80-120. 'auto' tries those of sweep"
    )
    sweep: SweepConfig = SweepConfig()
    hdbscan: HdbscanConfig = HdbscanConfig()
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
        default=0.99, gt=0.5, lt=1, description="Farther than this quantile of usage and current rows is an outlier"
    )
    outlier_min_rows: int = Field(
        default=100,
        ge=1,
        description="With fewer usage and current rows, a language uses the quantile of its pool rows; with fewer of "
        "these as well, the global one",
    )
    device: Annotated[Literal["auto", "cpu", "gpu"], EXECUTION] = Field(
        default="auto", description="Where centroids are compared; auto: GPUs if the cluster and faiss have them"
    )
    actors: Annotated[int | None, EXECUTION] = Field(
        default=None,
        ge=1,
        description="Actors that hold the rows; if not given as many as there are CPUs or GPUs and the rows are worth",
    )
