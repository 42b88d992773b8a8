"""What a candidate has to prove before it may replace the champion: ``gate`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from compass_ray.configbase import NAME, Config
from compass_ray.ingest.config import SourceConfig


class TextsConfig(SourceConfig):
    """One set of files with texts that an adapter must not unlearn: a source whose role goes without saying."""

    role: Literal["usage"] = "usage"


class GateConfig(Config):
    """When a candidate is better, and when it is not worse.

    The margin is stated beforehand: one that is chosen after a look at the losses proves nothing.
    """

    texts: dict[Annotated[str, Field(pattern=NAME)], TextsConfig] = Field(
        default={},
        description="Texts that an adapter must not unlearn, such as English, by name, described as sources are",
    )
    margin: float = Field(
        default=0.02,
        gt=0,
        allow_inf_nan=False,
        description="Bits per byte that a candidate may be worse by on former usage and on these texts",
    )
    min_documents: int = Field(
        default=30,
        ge=2,
        description="With fewer independent documents a test is undecided. What happens to one document in ten is "
        "missed by 30 of them in 4 cases of 100, and intervals hold what they say from about there",
    )
    min_cluster_documents: int = Field(
        default=30, ge=2, description="A cluster of former usage with so many documents is tested on its own"
    )
    min_covered: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share of former usage that has to lie in clusters with held-out documents; with less, nobody "
        "knows what became of the rest, and former usage is undecided",
    )
    confidence: float = Field(
        default=0.95,
        ge=0.5,
        le=0.999,
        description="Of intervals. A test looks at one end, so that a candidate passes wrongly in half the rest of the "
        "cases; over clusters a gate fails wrongly in the rest",
    )
    resamples: int = Field(default=10_000, ge=4_000, description="Draws of the bootstrap behind each interval")
