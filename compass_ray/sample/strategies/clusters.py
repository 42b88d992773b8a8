"""What strategies with cluster quotas share: what near clusters give, languages, and the bounds on these."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import Counts
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.languages import Allocate, LanguageRules, capacity_weights, capped_quotas
from compass_ray.sample.nearness import language_tiers
from compass_ray.sample.problem import Problem
from compass_ray.sample.transport import Moves, reach_of, transport


def by_cluster_and_language(allocate: Allocate, problem: Problem, config: SampleConfig) -> NDArray[np.int64]:
    """Give clusters quotas by what they hold, and share these among languages by the rules of the config."""
    return capped_quotas(allocate, problem.capacity, language_rules(problem, config), config.amount or 0)


def served_quotas(wanted: Counts, problem: Problem, config: SampleConfig, aside: int = 0) -> NDArray[np.int64]:
    """Serve what clusters ask for from them and near ones, and share that among languages by the rules of the config.

    Parameters
    ----------
    wanted : ndarray of shape (n_clusters,), int64
        In the unit of the budget, as ``aside``.
    aside : int
        What is kept of the budget for languages that have no capacity here.

    Returns
    -------
    ndarray of shape (n_clusters, n_languages), int64
    """
    budget = (config.amount or 0) - aside
    rules = language_rules(problem, config)
    rules = replace(rules, at_most=np.minimum(rules.at_most, budget))
    return capped_quotas(_with_near_clusters(wanted, problem, config), problem.capacity, rules, budget)


def asked(allocate: Allocate, problem: Problem, config: SampleConfig) -> Counts:
    """Compute each cluster's part of the budget from a pool without end. Shape (n_clusters,)."""
    budget = config.amount or 0
    return allocate(np.full(len(problem.distance), budget, dtype=np.int64), budget)


def servable(wanted: Counts, problem: Problem, config: SampleConfig) -> Counts:
    """Tell how much of what each cluster asks for it and near clusters hold, shape (n_clusters,)."""
    capacity = problem.capacity.sum(axis=1)
    own: Counts = np.minimum(wanted, capacity)
    return own + transport(wanted - own, capacity - own, problem.distance, _reach(problem, config)).out_of(len(wanted))


def _with_near_clusters(wanted: Counts, problem: Problem, config: SampleConfig) -> Allocate:
    """Serve what clusters ask for from their own documents, then from those of near clusters, and no further."""
    reach = _reach(problem, config)

    def allocate(capacity: Counts, budget: int) -> Counts:
        own = np.minimum(wanted, capacity)
        return own + transport(wanted - own, capacity - own, problem.distance, reach).into(len(wanted))

    return allocate


def moves_behind(quota: Counts, wanted: Counts, problem: Problem, config: SampleConfig) -> Moves:
    """Say for which cluster's usage the documents are that a quota holds beyond what its own cluster asks for."""
    own = np.minimum(wanted, quota)
    return transport(wanted - own, quota - own, problem.distance, _reach(problem, config))


def _reach(problem: Problem, config: SampleConfig) -> float:
    return np.inf if config.on_shortfall == "nearest" else reach_of(problem.distance, config.transport_reach)


def language_rules(problem: Problem, config: SampleConfig) -> LanguageRules:
    """Put the rules of the config in the unit of the budget.

    Caps are rounded up, so that a language always has room for one; floors down.
    """
    budget = config.amount or 0
    caps = np.array([config.cap_of(lang) for lang in problem.languages])
    floors = np.array([config.floor_of(lang, problem.target_lang) for lang in problem.languages])
    return LanguageRules(
        weights=capacity_weights(problem.capacity),
        tier=language_tiers(problem.target_lang, problem.languages, config),
        in_cluster=config.max_cluster_language_fraction or 1.0,
        at_most=np.ceil(caps * budget - 1e-9).astype(np.int64),
        at_least=np.floor(floors * budget + 1e-9).astype(np.int64),
    )
