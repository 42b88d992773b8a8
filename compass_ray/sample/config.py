"""What is selected, and against what: ``target`` and ``sample`` in the config."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from compass_ray.configbase import Config


class TargetConfig(Config):
    """How target usage is used."""

    holdout_fraction: float = Field(
        default=0.3, ge=0, lt=1, description="Share of target documents that only the certificate sees"
    )


class SampleConfig(Config):
    """The selection problem."""

    strategy: Literal["kl", "deficit", "random", "all"] = "kl"
    budget: int | None = Field(default=None, ge=1, description="Documents to select for each owner")
    language_temperature: float = Field(
        default=0.5, ge=0, le=1, description="Languages share a cluster's quota by capacity to this power; 0 is equal"
    )

    @model_validator(mode="after")
    def _budget_unless_all(self) -> SampleConfig:
        if (self.budget is None) != (self.strategy == "all"):
            raise ValueError("budget is needed by every strategy but 'all', which takes none")
        return self
