"""What the estimate of usage and the draw inside clusters were chosen by: other topics and target languages than
figures are of.

On the problems of ``usage_problems.py``, which are embedded and clustered by the engine's own encoder and kernels,
without Ray.

Estimates are scored by usage that nothing has seen: bits a document, and the divergence of current data plus the
selection of ``kl``, beside what ``deficit`` and ``importance`` make of the same estimate, and of unseen usage if it
were known. Draws are scored by the divergence in two codebooks of which they know nothing, since inside its own
codebook a draw changes no count.

    python benchmarks/usage_shares.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from usage_problems import Problem, Vector, Vectors, news_problems, sib200, sib_problems  # beside this file

from compass_ray.cluster import kernels
from compass_ray.cluster.fit import KMeansResult, RowGroup, ShardRows, lloyd, seed_centroids
from compass_ray.cluster.sampling import ROLE_MASS
from compass_ray.divergence import jsd
from compass_ray.sample.allocation import kl_quotas, proportional_quotas
from compass_ray.sample.usage_contrast import contrast, products, sums
from compass_ray.usage_shares import (
    BANDWIDTH,
    CURRENT_SHARE,
    Observed,
    cluster_weights,
    estimate_usage,
    soft_counts,
)

Counts = NDArray[np.int64]
BUDGETS = (300, 1000, 5000)
WIDTHS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.7, 0.9)
CURRENT_SHARES = (0.0, 0.1, 0.2, 0.3)
STRATEGIES = ("kl", "deficit", "importance")
TEMPERATURES = (None, 1.0, 0.7, 0.5, 0.35, 0.25)
FEW = 3
HOLDOUT, JUDGES, JUDGE_CLUSTERS = 0.3, 2, 50


def clustered(x: Vectors, weights: NDArray[np.float64], n_clusters: int, seed: int) -> KMeansResult:
    """Fitted by the engine's k-means."""
    ids = np.random.default_rng(seed).integers(0, 256, (len(x), 16), dtype=np.uint8)
    group = RowGroup([ShardRows(ids, x, weights)])

    def broadcast(method: str, *args: Any) -> list[Any]:
        return [getattr(group, method)(*args)]

    start = seed_centroids(broadcast, n_clusters, x.shape[1], seed)
    return lloyd(broadcast, start, max_iterations=60, tol=1e-3)


def weighted(problem: Problem, usage: Mapping[str, Vectors]) -> tuple[Vectors, NDArray[np.float64]]:
    """All rows with the weights of the fit."""
    parts = [("pool", str(lang), problem.pool[problem.langs == lang]) for lang in np.unique(problem.langs)]
    parts += [("usage", target_lang, rows) for target_lang, rows in usage.items()]
    parts += [("current", target_lang, rows) for target_lang, rows in problem.current.items()]
    of_row = kernels.row_weights({(role, lang): len(rows) for role, lang, rows in parts}, ROLE_MASS)
    weights = np.concatenate([np.full(len(rows), of_row[role, lang]) for role, lang, rows in parts])
    return np.concatenate([rows for _, _, rows in parts]), weights


def count(x: Vectors, centroids: Vectors) -> Counts:
    """Rows by cluster."""
    return np.bincount(kernels.nearest(x, centroids)[0], minlength=len(centroids))


def estimates(
    similarities: Mapping[str, NDArray[Any]],
    weights: NDArray[np.float64],
    width: float,
    current: Mapping[str, Counts],
    current_share: float,
) -> dict[str, NDArray[np.float64]]:
    """The estimate of each target language's usage, as the sample stage makes it."""
    shares = {target_lang: soft_counts(rows, weights, width) for target_lang, rows in similarities.items()}
    of_all = np.sum([rows.sum(axis=0) for rows in shares.values()], axis=0)
    found = {}
    for target_lang, rows in similarities.items():
        clusters = rows.argmax(axis=1)
        counts = np.bincount(clusters, minlength=len(weights))
        here = np.bincount(clusters, shares[target_lang][np.arange(len(rows)), clusters], minlength=len(weights))
        found[target_lang], _ = estimate_usage(
            Observed(counts, counts, of_all, here), current[target_lang], current_share
        )
    return found


def measure(problem: Problem, seed: int) -> list[dict[str, Any]]:
    """Rows of all tables for one problem."""
    rng = np.random.default_rng(seed)
    known = {target_lang: rng.random(len(rows)) >= HOLDOUT for target_lang, rows in problem.usage.items()}
    x, row_weights = weighted(problem, problem.usage)
    fit = clustered(x, row_weights, problem.n_clusters, seed)
    centroids = fit.centroids
    labels = kernels.nearest(problem.pool, centroids)[0]
    capacity = np.bincount(labels, minlength=problem.n_clusters)
    current = {target_lang: count(rows, centroids) for target_lang, rows in problem.current.items()}
    unseen = {target_lang: count(rows, centroids) for target_lang, rows in problem.unseen.items()}
    usage = {target_lang: rows[known[target_lang]] for target_lang, rows in problem.usage.items()}
    seen = {target_lang: rows @ centroids.T for target_lang, rows in usage.items()}
    starts = np.cumsum(
        [len(problem.pool), *map(len, problem.usage.values())]
    )  # of each target language's rows among the fitted
    weights_of = {
        target_lang: row_weights[start:][: len(known[target_lang])]
        for target_lang, start in zip(known, starts, strict=False)
    }
    left_out = {
        target_lang: kernels.nearest_leave_one_out(
            rows, weights_of[target_lang][known[target_lang]], centroids, fit.lengths
        )[2]
        for target_lang, rows in usage.items()
    }
    common = cluster_weights(capacity, np.sum(list(current.values()), axis=0))
    rows = []
    alike = np.full_like(common, 1 / len(common))
    variants = [("seen, clusters alike", seen, alike, 0.9, 0.0), ("seen", seen, common, 0.5, 0.2)]
    variants += [("left out", left_out, common, *both) for both in itertools.product(WIDTHS, CURRENT_SHARES)]
    shares = {target_lang: counts / counts.sum() for target_lang, counts in unseen.items()}
    for name, similarities, weights, width, part in variants:
        estimate = estimates(similarities, weights, width, current, part)
        row: dict[str, Any] = {"group": problem.group, "seed": seed, "usage": name, "width": width, "current": part}
        row["bits"] = float(np.mean([-(shares[o] * np.log2(estimate[o])).sum() for o in estimate]))
        rows.append(row | divergences("kl", estimate, current, capacity, shares, seed))
    estimate = estimates(left_out, common, BANDWIDTH, current, CURRENT_SHARE)
    for name, strategy in itertools.product(("estimated", "known"), STRATEGIES):
        row = {"group": problem.group, "seed": seed, "shares": name, "strategy": strategy}
        by = (
            estimate if name == "estimated" else shares
        )  # known: how far strategies would differ if nothing were unknown
        rows.append(row | divergences(strategy, by, current, capacity, shares, seed))
    return rows + draws(problem, usage, estimate, labels, current, capacity, seed)


def divergences(
    strategy: str,
    estimate: Mapping[str, Vector],
    current: Mapping[str, Counts],
    capacity: Counts,
    shares: Mapping[str, Vector],
    seed: int,
) -> dict[str, float]:
    """JSD from unseen usage after a selection of each size, means over target languages."""
    found = {}
    for budget in BUDGETS:
        after = {o: current[o] + selected(strategy, estimate[o], current[o], capacity, budget, seed) for o in estimate}
        found[f"jsd_{budget}"] = float(np.mean([_jsd(shares[o], after[o]) for o in estimate]))
    return found


def selected(strategy: str, estimate: Vector, current: Counts, capacity: Counts, budget: int, seed: int) -> Counts:
    """How many documents of each cluster a strategy selects."""
    if strategy == "kl":
        return kl_quotas(estimate, current.astype(float), capacity, budget)
    if strategy == "deficit":
        return proportional_quotas(np.maximum(0, estimate - current / current.sum()), capacity, budget)
    with np.errstate(divide="ignore", invalid="ignore"):  # clusters without documents have no row below
        weights = np.log(estimate) - np.log(capacity)
    cluster = np.repeat(np.arange(len(capacity)), capacity)
    keys = weights[cluster] + np.random.default_rng(seed).gumbel(size=len(cluster))
    best = np.argpartition(-keys, budget)[:budget]
    return np.bincount(cluster[best], minlength=len(capacity))


def draws(
    problem: Problem,
    usage: Mapping[str, Vectors],
    estimate: Mapping[str, NDArray[np.float64]],
    labels: NDArray[np.int32],
    current: Mapping[str, Counts],
    capacity: Counts,
    seed: int,
) -> list[dict[str, Any]]:
    """How far selections of 1,000 lie from unseen usage in other codebooks, by the temperature of the draw."""
    x, weights = weighted(problem, problem.unseen)
    judges = [clustered(x, weights, JUDGE_CLUSTERS, 1000 + seed + number).centroids for number in range(JUDGES)]
    languages = int(problem.langs.max()) + 1
    cell = labels.astype(np.int64) * languages + problem.langs
    inside = np.bincount(cell, minlength=len(capacity) * languages).reshape(-1, languages)
    found: dict[float | None, dict[str, list[float]]] = {t: {"jsd": [], "texts": [], "asked": []} for t in TEMPERATURES}
    for target_lang, share in estimate.items():
        by_cluster = kl_quotas(share, current[target_lang].astype(float), capacity, 1000)
        quotas = np.stack(
            [proportional_quotas(np.sqrt(inside[k]), inside[k], int(by_cluster[k])) for k in range(len(by_cluster))]
        )
        odds = towards(problem, usage[target_lang], target_lang)
        noise = np.random.default_rng(seed).gumbel(size=len(cell))
        for temperature, values in found.items():
            keys = noise if temperature is None else noise + odds / temperature
            order = np.lexsort((-keys, cell))
            rank = np.arange(len(cell)) - np.searchsorted(cell[order], cell[order])
            chosen = order[rank < quotas.ravel()[cell[order]]]
            for judge in judges:
                training = count(problem.pool[chosen], judge) + count(problem.current[target_lang], judge)
                values["jsd"].append(_jsd(count(problem.unseen[target_lang], judge), training))
            if problem.texts is not None and problem.asked is not None:
                values["texts"].append(len(np.unique(problem.texts[chosen])))
                values["asked"].append(float(problem.asked[chosen].mean()))
    return [
        {"group": problem.group, "seed": seed, "temperature": temperature}
        | {name: float(np.mean(some)) for name, some in values.items() if some}
        for temperature, values in found.items()
    ]


def towards(problem: Problem, usage: Vectors, target_lang: str) -> Vector:
    """Log odds that pool documents are of usage, as the sample stage finds them in two passes over shards."""
    means = contrast(*(sums(x, np.arange(len(x))) for x in (usage, problem.pool, problem.current[target_lang])))
    along = products(problem.pool, means.difference)
    return along * means.distance_sq / along.var()


def _jsd(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(jsd(one / one.sum(), other / other.sum()))


def with_few_current(problem: Problem) -> Problem:
    """The same with three current documents a target language, which say little of what an adapter is for."""
    rng = np.random.default_rng(len(problem.pool))
    few = {target_lang: rows[rng.permutation(len(rows))[:FEW]] for target_lang, rows in problem.current.items()}
    return replace(problem, group=f"{problem.group}, {FEW} current documents", current=few)


def means(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Means over the problems of a group, for each setting."""
    mine = [row for row in rows if all(key in row for key in keys)]
    found = []
    for setting in dict.fromkeys(tuple(row[key] for key in ("group", *keys)) for row in mine):
        same = [row for row in mine if tuple(row[key] for key in ("group", *keys)) == setting]
        values = [name for name in same[0] if name not in ("group", "seed", *keys)]
        averages = {name: round(float(np.mean([row[name] for row in same])), 4) for name in values}
        found.append(dict(zip(("group", *keys), setting, strict=True)) | averages | {"problems": len(same)})
    return found


def against_kl(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By how much other strategies' divergences lie above that of ``kl``, with the standard error over problems."""
    found = []
    settings = dict.fromkeys((row["group"], row["shares"]) for row in rows if "shares" in row)
    for (group, shares), strategy, budget in itertools.product(settings, STRATEGIES[1:], BUDGETS):
        mine = [row for row in rows if row["group"] == group and row.get("shares") == shares]
        of = {
            name: np.array([row[f"jsd_{budget}"] for row in mine if row["strategy"] == name])
            for name in ("kl", strategy)
        }
        more = of[strategy] - of["kl"]
        found.append(
            {
                "group": group,
                "shares": shares,
                "strategy": strategy,
                "budget": budget,
                "above_kl": round(float(more.mean()), 4),
                "standard_error": round(float(more.std(ddof=1) / len(more) ** 0.5), 4),
                "kl_lower_in": f"{(more > 0).sum()} of {len(more)}",
            }
        )
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/usage_shares.json"))
    arguments = parser.parse_args()
    sib = sib200(arguments.data)
    rows: list[dict[str, Any]] = []
    problems = itertools.chain(
        sib_problems(sib), news_problems(arguments.data, sib), map(with_few_current, sib_problems(sib))
    )
    for seed, problem in enumerate(problems):
        rows += measure(problem, seed)
        print(f"{seed + 1} problems", end="\r", flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {
        "machine": machine,
        "estimates": means(rows, ["usage", "width", "current"]),
        "strategies": means(rows, ["shares", "strategy"]),
        "against_kl": against_kl(rows),
        "draws": means(rows, ["temperature"]),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    tables = [table(body[name]) for name in ("estimates", "strategies", "against_kl", "draws")]
    print("\n\n".join("\n".join(lines) for lines in tables))


if __name__ == "__main__":
    main()
