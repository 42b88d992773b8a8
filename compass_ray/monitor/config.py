"""Which usage is watched, against what, and what counts as drift: ``monitor`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from compass_ray.configbase import NAME, Config
from compass_ray.ingest.config import SourceConfig

Period = Literal["all", "day", "week", "month"]

_ALIASES = ("champion", "candidate", "previous")
"""Of the registry, which is another stage."""


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
    base: str | None = Field(
        default=None,
        description="Key of the base model whose adapters count, as `compass-ray registry list` shows it; needed for "
        "a language with adapters on several",
    )
    period: Period = Field(
        default="all", description="Windows that usage is cut into by its timestamps, in UTC; weeks start on Monday"
    )
    as_of: AwareDatetime | None = Field(
        default=None,
        description="The end of the latest window: documents dated later are left out and counted. Nothing asks the "
        "clock, so a wrong date in the future is else the latest window. A window that is not over by then is not "
        "judged; if not given, that is the latest",
    )
    max_age: int | None = Field(
        default=None,
        ge=0,
        description="Periods before the latest window after which one is too old to count; null: none is",
    )
    cooldown: int = Field(
        default=0,
        ge=0,
        description="Periods, from that in which the reference's adapter was made, whose windows make no drift",
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
        several = {"among": self.among > 1, "max_age": self.max_age is not None, "cooldown": self.cooldown > 0}
        if self.period == "all" and (given := [name for name, is_given in several.items() if is_given]):
            raise ValueError(f"{given[0]}: needs several windows; set period to day, week or month")
        of_registry = {"base": self.base is not None, "cooldown": self.cooldown > 0}
        if self.reference not in _ALIASES and (given := [name for name, is_given in of_registry.items() if is_given]):
            raise ValueError(f"{given[0]}: is about adapters of a registry; set reference to {', '.join(_ALIASES)}")
        return self
