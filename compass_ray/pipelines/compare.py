"""Compare: several strategies over one set of artifacts, their certificates side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from pydantic import ValidationError

from compass_ray import storage
from compass_ray.artifacts import Artifact
from compass_ray.config import RunConfig
from compass_ray.errors import ConfigError
from compass_ray.pipelines.clustered import cluster_documents, plan
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import session
from compass_ray.runtime.stage_record import StageRecord
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.stage import DRAW, certificate, sample
from compass_ray.sample.traits import TRAITS


@dataclass(frozen=True)
class Compared:
    """What one strategy selected for one target language.

    Attributes
    ----------
    languages : dict
        Share of the selected documents by language, largest first.
    effective_languages : float
        Exponential of the entropy of those shares: the number of equally large languages with the same entropy.
    seconds : float
        Of the strategy, for all target languages together; 0 where its artifact existed.
    """

    strategy: str
    target_lang: str
    certificate: dict[str, Any]
    languages: dict[str, float]
    effective_languages: float
    seconds: float


def compare(config: RunConfig, strategies: Sequence[str], display: Display | None = None) -> list[Compared]:
    """Sample with each strategy; the config's own is not run unless named.

    Nothing is published, but artifacts are kept: a later ``curate`` with one of the strategies finds its work done.

    Parameters
    ----------
    config : RunConfig
    strategies : sequence of str
        Names of ``sample.strategy``.

    Returns
    -------
    list of Compared
        Target languages in order, and strategies as given.

    Raises
    ------
    CompassError
    """
    if config.sample is None:
        raise ConfigError("sample: compare needs this section; give at least sample.budget")
    configs = [(name, with_strategy(config.sample, name)) for name in strategies]
    rows = []
    with session(storage.absolute(config.output), config.ray, display, config.name) as opened:
        inputs = cluster_documents(config, plan(config), opened).inputs
        for name, chosen in configs:
            sampled = sample(inputs, chosen, opened)
            rows += compared(name, sampled, opened.stages[-1])
    return sorted(rows, key=lambda row: row.target_lang)


def compared(strategy: str, sampled: Artifact, record: StageRecord) -> list[Compared]:
    """Sum up what a sample artifact holds for each target language."""
    drawn = sampled.read(DRAW)
    rows = []
    for target_lang, body in certificate(sampled).items():
        counts = pc.value_counts(drawn.filter(pc.equal(drawn["target_lang"], target_lang))["lang"]).to_pylist()
        counts.sort(key=lambda item: (-item["counts"], item["values"]))
        total = sum(item["counts"] for item in counts)
        shares = {item["values"]: item["counts"] / total for item in counts}
        weights = np.array(list(shares.values()))
        effective = float(np.exp(-(weights * np.log(weights)).sum())) if total else 0.0
        rows.append(Compared(strategy, target_lang, body, shares, effective, 0.0 if record.reused else record.seconds))
    return rows


def label(strategy: str, encoder: str) -> str:
    """Name a strategy as the literature does, where the encoder makes it so: ``round_robin`` over ``base`` is RDS+."""
    return f"{strategy} (RDS+)" if (strategy, encoder) == ("round_robin", "base") else strategy


def with_strategy(config: SampleConfig, strategy: str) -> SampleConfig:
    """Set another strategy for the same problem. ``all`` takes no budget, and not every draw a temperature.

    Raises
    ------
    ConfigError
        If there is no such strategy, or it cannot keep to the config's other fields.
    """
    given = config.model_dump(exclude_defaults=True) | {"strategy": strategy}
    traits = TRAITS.get(strategy)
    if traits is not None and not traits.takes_budget:
        given |= {"budget": None, "budget_tokens": None}
    if traits is not None and traits.decides != "cluster":  # a baseline is drawn as it always is
        for name in ("similarity_temperature", "language_prior", "transport_reach", "own_language_epochs"):
            given.pop(name, None)
        if config.transports:
            given.pop("shortfall", None)
    try:
        return SampleConfig.model_validate(given)
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'sample'}: {e['msg']}" for e in exc.errors())
        raise ConfigError(f"strategy '{strategy}': {problems}") from exc
