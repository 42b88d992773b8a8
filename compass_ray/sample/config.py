"""What is selected, and against what: ``target`` and ``sample`` in the config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from compass_ray.configbase import Config

StrategyName = Literal[
    "kl", "deficit", "hybrid", "random", "all", "temperature", "unimax", "langsim", "importance", "nearest",
    "round_robin", "dsir",
]  # fmt: skip

WITH_CLUSTER_QUOTAS = ("kl", "deficit", "hybrid")
"""Strategies that give each cluster a quota and share it among languages: caps and draws towards usage are theirs."""
WITH_LANGUAGE_FEATURES = ("langsim", "hybrid")


_TEMPERATURE = 0.35
"""Chosen on other topics and owners than published figures are of: lower ones draw fewer distinct texts."""


def _yaml_off(value: Any) -> Any:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


def _number_or_off(value: Any) -> Any:
    """One message for each mistake: a union would give one for each of its members."""
    if _yaml_off(value) == "off":
        return "off"
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise PydanticCustomError("number_or_off", "Input should be a number above 0, or 'off'")
    return number


class TargetConfig(Config):
    """How target usage is used."""

    holdout_fraction: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="Share of target documents that the certificate measures on and nothing is chosen by",
    )


class SampleConfig(Config):
    """The selection problem."""

    strategy: StrategyName = "kl"
    budget: int | None = Field(default=None, ge=1, description="Documents to select for each owner")
    budget_tokens: int | None = Field(
        default=None, ge=1, description="Tokens to select for each owner, instead of documents"
    )
    shortfall: Literal["refuse", "accept"] = Field(
        default="refuse", description="Whether a budget that the eligible pool cannot fill is an error"
    )
    language_temperature: float = Field(
        default=0.5, ge=0, le=1, description="Languages share a quota by capacity to this power; 0 is equal"
    )
    max_language_fraction: float | dict[str, float] | None = Field(
        default=None, description="At most this share of an owner's budget from one pool language, or from the named"
    )
    max_cluster_language_fraction: float | None = Field(
        default=None, gt=0, le=1, description="At most this share of a cluster's quota from one language, rounded up"
    )
    similarity_temperature: Annotated[float | Literal["off"], BeforeValidator(_number_or_off)] = Field(
        default=_TEMPERATURE,
        description="With cluster quotas, draw documents of a cell by their odds to be of the owner's usage, judged by "
        "their vectors, to the power of 1 / this; off draws all alike",
    )
    near_duplicates: Annotated[Literal["off", "within_language", "across_languages"], BeforeValidator(_yaml_off)] = (
        Field(default="within_language", description="Where near-duplicates of a selected document are passed over")
    )
    near_duplicate_similarity: float = Field(
        default=0.95, gt=0, lt=1, description="Documents of a cluster with a higher cosine are near-duplicates"
    )
    neighbours: Literal["exact", "faiss"] = Field(
        default="exact", description="How nearest and round_robin search: all products, or an approximate index"
    )
    language_features: str | None = Field(
        default=None, description="Folder of URIEL feature tables, for langsim and hybrid"
    )
    language_similarity_power: float = Field(
        default=4.0, gt=0, description="Languages count by URIEL similarity to this power"
    )

    @model_validator(mode="after")
    def _one_budget_unless_all(self) -> SampleConfig:
        given = (self.budget is not None) + (self.budget_tokens is not None)
        if given != (self.strategy != "all"):
            raise ValueError("one of budget and budget_tokens is needed by every strategy but 'all', which takes none")
        return self

    @model_validator(mode="after")
    def _fields_that_the_strategy_reads(self) -> SampleConfig:
        problems = []
        if self.strategy not in WITH_CLUSTER_QUOTAS:
            names = ("max_language_fraction", "max_cluster_language_fraction", "similarity_temperature")
            problems += [
                f"{name} needs a strategy with cluster quotas ({', '.join(WITH_CLUSTER_QUOTAS)})"
                for name in names
                if getattr(self, name) not in ("off", type(self).model_fields[name].default)
            ]
        if self.strategy in WITH_LANGUAGE_FEATURES and self.language_features is None:
            problems.append(f"language_features is needed by '{self.strategy}': a folder with URIEL's features.npz")
        fractions = self.max_language_fraction
        values = fractions.values() if isinstance(fractions, dict) else [] if fractions is None else [fractions]
        if not all(0 < value <= 1 for value in values):
            problems.append("max_language_fraction lies above 0 and at most at 1")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def temperature(self) -> float | None:
        """That of draws towards usage, which cost passes over all vectors; None where documents are drawn all alike."""
        if self.strategy not in WITH_CLUSTER_QUOTAS or self.similarity_temperature == "off":
            return None
        return self.similarity_temperature

    @property
    def unit(self) -> Literal["documents", "tokens"]:
        """What budgets, quotas and capacities count."""
        return "documents" if self.budget_tokens is None else "tokens"

    @property
    def amount(self) -> int | None:
        """The budget in ``unit``; None under ``all``."""
        return self.budget if self.budget_tokens is None else self.budget_tokens
