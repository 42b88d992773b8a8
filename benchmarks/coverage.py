"""Do intervals hold the truth? Simulated usage with a known distribution; intervals of usage_shares and certificates.

python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.divergence import jsd
from compass_ray.sample.allocation import hypergeometric_quotas
from compass_ray.sample.certificate import HeldOut, divergence, over_random, reduction
from compass_ray.usage_shares import Observed, effective_number, estimate_usage, share_interval, soft_counts
from compass_ray.vectors import unit_rows

Vector = NDArray[np.float64]


TOPICS = {"three topics": 3, "ten topics": 10, "thirty topics": 30, "hundred topics": 100, "no topics": 0}
POPULATION = 20_000


def truths(n_clusters: int, rng: np.random.Generator) -> dict[str, Vector]:
    """Distributions of usage over clusters, of several shapes."""
    zipf = rng.permutation(1 / np.arange(1, n_clusters + 1))
    half = rng.dirichlet(np.full(n_clusters, 0.5)) * (rng.permutation(n_clusters) < n_clusters // 2)
    one = 0.2 * rng.dirichlet(np.ones(n_clusters)) + 0.8 * (np.arange(n_clusters) == n_clusters // 2)
    return {
        "flat": rng.dirichlet(np.full(n_clusters, 5.0)),
        "uneven": rng.dirichlet(np.full(n_clusters, 1.0)),
        "peaked": rng.dirichlet(np.full(n_clusters, 0.2)),
        "zipf": zipf / zipf.sum(),
        "half empty": half / half.sum(),
        "one cluster": one,
    }


def populations(n_clusters: int, rng: np.random.Generator) -> dict[str, Vector]:
    """Cosines of many documents with the centroids: a few topics on a sphere, or each document on its own."""
    centroids = unit_rows(rng.normal(size=(n_clusters, 16)))
    found = {}
    for name, topics in TOPICS.items():
        around = unit_rows(rng.normal(size=(topics, 16)))[rng.integers(0, topics, POPULATION)] if topics else 0
        documents = unit_rows(around + rng.normal(size=(POPULATION, 16)) * 0.15)
        found[name] = (documents @ centroids.T).astype(np.float16)
    return found


def usage_shares(n_clusters: int, documents: int, repetitions: int) -> list[dict[str, Any]]:
    """Coverage of the intervals of usage_shares, and the distance of p̃ and p̂ from the truth."""
    rng = np.random.default_rng(0)
    even = np.full(n_clusters, 1 / n_clusters)  # neither pool nor current data: no cluster is commoner than others
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for _ in range(repetitions):
        everybody = populations(n_clusters, rng)
        for shape, cosines in everybody.items():
            clusters = cosines.argmax(axis=1)
            truth = np.bincount(clusters, minlength=n_clusters) / POPULATION
            own = rng.integers(0, POPULATION, documents)
            counts = np.bincount(clusters[own], minlength=n_clusters)
            unlike = everybody["ten topics" if shape != "ten topics" else "thirty topics"]
            for kind, others in (("none", cosines[:0]), ("like", cosines), ("unlike", unlike)):
                drawn = others[rng.integers(0, POPULATION, 3 * documents)] if len(others) else others
                shares = soft_counts(cosines[own], even)
                here = np.bincount(clusters[own], shares[np.arange(documents), clusters[own]], minlength=n_clusters)
                of_all = shares.sum(axis=0) + soft_counts(drawn, even).sum(axis=0)
                shares, _ = estimate_usage(Observed(counts, counts, of_all, here), np.zeros(n_clusters))
                low, high = share_interval(counts, shares)
                covered = (low <= truth + 1e-15) & (truth <= high)
                large = truth > 1 / n_clusters
                row = (
                    covered.mean(),
                    covered[large].mean(),
                    (high - low).mean(),
                    float(jsd(shares, truth)),
                    float(jsd(counts / documents, truth)),
                )
                found.setdefault((shape, kind), []).append(row)
    names = ("coverage", "coverage_large", "width", "jsd_shrunk", "jsd_observed")
    return [
        {"clusters": n_clusters, "documents": documents, "usage": shape, "other_target_langs": kind}
        | dict(zip(names, np.round(np.mean(rows, axis=0), 5).tolist(), strict=True))
        for (shape, kind), rows in found.items()
    ]


def asked(truth: Vector, documents: int, copies: int, rng: np.random.Generator) -> HeldOut:
    """A sample of usage of so many distinct documents, each asked once to ``copies`` times, as often as the others."""
    clusters = rng.choice(len(truth), size=documents, p=truth)
    times = rng.integers(1, copies + 1, size=documents)
    counts = np.bincount(clusters, weights=times, minlength=len(truth)).astype(np.int64)
    return HeldOut(counts, effective_number(counts, int((times**2).sum())))


def certificates(n_clusters: int, documents: int, repetitions: int, copies: int = 1) -> list[dict[str, Any]]:
    """Coverage of the intervals of a divergence, and of a reduction between two."""
    rng = np.random.default_rng(1)
    rows = []
    for shape, truth in truths(n_clusters, rng).items():
        far = rng.dirichlet(np.ones(n_clusters))
        for distance, share in (("far", 0.0), ("half way", 0.5), ("near", 0.9)):
            training = np.round(1e6 * (share * truth + (1 - share) * far)).astype(np.int64) + 1
            true_value = float(jsd(truth, training / training.sum()))
            true_reduction = float(jsd(truth, far)) - true_value
            inside, paired, width, harm = [], [], [], []
            for _ in range(repetitions):
                heldout = asked(truth, documents, copies, rng)
                estimate = divergence(heldout, training, rng)
                inside.append(estimate.low <= true_value <= estimate.high)
                width.append(estimate.high - estimate.low)
                if share:
                    change = reduction(heldout, far, training.astype(np.float64), rng)
                    paired.append(change.low <= true_reduction <= change.high)
                    width.append(change.high - change.low)
                    harm.append(change.high < 0)  # the opposite of the truth, claimed
            rows.append(
                {
                    "clusters": n_clusters,
                    "held_out": documents,
                    "copies": copies,
                    "truth": shape,
                    "training": distance,
                    "true_jsd": round(true_value, 4),
                    "coverage": round(float(np.mean(inside)), 3),
                    "coverage_of_reduction": round(float(np.mean(paired)), 3) if paired else None,
                    "width": round(float(np.mean(width)), 4),
                    "narrowest": round(float(np.min(width)), 4),
                    "wrong_way": round(float(np.mean(harm)), 3) if harm else None,
                }
            )
    return rows


def random_selections(documents: int, repetitions: int) -> list[dict[str, Any]]:
    """How often ``reduction_over_random`` of a selection that is drawn at random has 0 in it."""
    n_clusters, rng, rows = 50, np.random.default_rng(2), []
    for budget in (40, 1000):
        for has_current in (False, True):
            truth = rng.dirichlet(np.ones(n_clusters))
            capacity = rng.multinomial(20_000, rng.dirichlet(np.ones(n_clusters)))
            current = rng.multinomial(300, rng.dirichlet(np.ones(n_clusters))) * int(has_current)
            held = []
            for _ in range(repetitions):
                selected = hypergeometric_quotas(capacity, budget, rng, 1)[0]
                found = over_random(asked(truth, documents, 1, rng), current, selected, capacity, rng)
                held.append(found.low <= 0 <= found.high)
            rows.append(
                {"held_out": documents, "budget": budget, "current": has_current, "holds_0": round(np.mean(held), 3)}
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and lowest coverage over shapes and distances."""
    found = []
    for setting in dict.fromkeys((row["clusters"], row["held_out"], row["copies"]) for row in rows):
        same = [row for row in rows if (row["clusters"], row["held_out"], row["copies"]) == setting]
        line: dict[str, Any] = dict(zip(("clusters", "held_out", "copies"), setting, strict=True))
        for name in ("coverage", "coverage_of_reduction"):
            values = [row[name] for row in same if row[name] is not None]
            line |= {f"{name}_mean": round(float(np.mean(values)), 3), f"{name}_lowest": min(values)}
        found.append(line | {"narrowest": min(row["narrowest"] for row in same)})
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join("–" if value is None else str(value) for value in row.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/coverage.json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    repetitions = arguments.repetitions
    of_usage_shares = [
        row
        for n in (30, 100)
        for m in (12, 30, 285, 1000, 10_000)
        for row in usage_shares(n, m, max(1, repetitions // 8))
    ]
    cells = [*itertools.product((30, 100), (5, 10, 20, 85, 300), (1,)), *itertools.product((30, 100), (10, 85), (30,))]
    with ProcessPoolExecutor(arguments.processes) as pool:
        found = pool.map(certificates, *zip(*((n, m, repetitions, copies) for n, m, copies in cells), strict=True))
        of_certificates = [row for rows in found for row in rows]
        drawn = pool.map(random_selections, (10, 85, 1000), itertools.repeat(3 * repetitions))
        of_random = [row for rows in drawn for row in rows]
    of_all = summary(of_certificates)
    show(of_usage_shares)
    show(of_certificates)
    show(of_all)
    show(of_random)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {"machine": machine, "seconds": round(time.monotonic() - started, 1)}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    body |= {"repetitions": repetitions, "usage_shares": of_usage_shares, "certificates": of_certificates}
    body |= {"summary": of_all, "random_selections": of_random}
    arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
