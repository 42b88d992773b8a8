"""Which usage is watched, against what, and what counts as drift: ``monitor`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from compass_ray.configbase import NAME, Config
from compass_ray.ingest.config import SourceConfig

Period = Literal["all", "day", "week", "month"]


class UsageConfig(SourceConfig):
    """One set of files with new usage: a source whose role goes without saying."""

    role: Literal["usage"] = "usage"


class MonitorConfig(Config):
    """What is compared, and when the difference counts.

    The floors are choices of ours, made on real corpora (``benchmarks/results/2026-11-28-monitor.md``); no published
    method names any.
    """

    usage: dict[Annotated[str, Field(pattern=NAME)], UsageConfig] = Field(
        min_length=1, description="New usage by name, described as sources are"
    )
    reference: str = Field(
        default="run",
        description="What it is compared with. run: the usage of this config's own run; champion, candidate or "
        "previous: the usage that each language's adapter of the registry was made for; else the folder of a run",
    )
    period: Period = Field(
        default="all", description="Windows that usage is cut into by its timestamps, in UTC; weeks start on Monday"
    )
    as_of: AwareDatetime | None = Field(
        default=None,
        description="The end of the latest window: documents dated later are left out and counted. Nothing asks the "
        "clock, so a wrong date in the future is else the latest window",
    )
    min_documents: int = Field(default=100, ge=1, description="A smaller window is not judged")
    min_reference: int = Field(default=200, ge=1, description="With less usage to compare with, nothing is judged")
    false_discovery_rate: float = Field(
        default=0.05, gt=0, lt=1, description="Of alarms over all languages of a window (Benjamini & Hochberg, 1995)"
    )
    min_divergence: float = Field(
        default=0.02, ge=0, lt=1, description="Bits of JSD that the lower end of the interval has to reach"
    )
    min_novelty: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Rise of the share of documents far from every cluster that the interval has to reach",
    )
    min_auc: float = Field(
        default=0.55,
        ge=0.5,
        lt=1,
        description="AUC of a classifier of new and reference vectors that the lower end of its interval has to reach; "
        "0.5 is chance",
    )
    exemplars: bool = Field(
        default=True, description="Show for a cluster the start of the document of a window that is nearest to it"
    )
    alarms: int = Field(default=1, ge=1, description="Windows with an alarm that make a drift ...")
    among: int = Field(default=1, ge=1, description="... among so many of the latest that could be judged")

    @model_validator(mode="after")
    def _possible(self) -> MonitorConfig:
        if self.alarms > self.among:
            raise ValueError(f"alarms: {self.alarms} of the latest {self.among} windows (among) can never be")
        if self.among > 1 and self.period == "all":
            raise ValueError("among: needs several windows; set period to day, week or month")
        return self
