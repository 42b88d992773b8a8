"""Do intervals hold the truth? Simulated usage with a known distribution; intervals of masses and certificates.

python benchmarks/coverage.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.divergence import jsd
from compass_ray.mass import base_measure, concentration, mass_interval, shrunk_mass, spread
from compass_ray.sample.certificate import divergence, reduction
from compass_ray.vectors import unit_rows

Vector = NDArray[np.float64]


TOPICS = {"three topics": 3, "ten topics": 10, "thirty topics": 30, "hundred topics": 100, "no topics": 0}
POPULATION = 20_000


def truths(n_clusters: int, rng: np.random.Generator) -> dict[str, Vector]:
    """Distributions of usage over clusters, of several shapes."""
    zipf = rng.permutation(1 / np.arange(1, n_clusters + 1))
    half = rng.dirichlet(np.full(n_clusters, 0.5)) * (rng.permutation(n_clusters) < n_clusters // 2)
    return {
        "flat": rng.dirichlet(np.full(n_clusters, 5.0)),
        "uneven": rng.dirichlet(np.full(n_clusters, 1.0)),
        "peaked": rng.dirichlet(np.full(n_clusters, 0.2)),
        "zipf": zipf / zipf.sum(),
        "half empty": half / half.sum(),
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


def masses(n_clusters: int, documents: int, repetitions: int) -> list[dict[str, Any]]:
    """Coverage of the intervals of masses, and the distance of p̃ and p̂ from the truth."""
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
                usage = spread(np.concatenate([cosines[own], drawn]), even).sum(axis=0)
                base = base_measure(usage, np.zeros(n_clusters, dtype=np.int64))
                mass = shrunk_mass(counts, base, concentration(counts, base))
                low, high = mass_interval(counts, mass)
                covered = (low <= truth + 1e-15) & (truth <= high)
                large = truth > 1 / n_clusters
                row = (
                    covered.mean(),
                    covered[large].mean(),
                    (high - low).mean(),
                    float(jsd(mass, truth)),
                    float(jsd(counts / documents, truth)),
                )
                found.setdefault((shape, kind), []).append(row)
    names = ("coverage", "coverage_large", "width", "jsd_shrunk", "jsd_observed")
    return [
        {"clusters": n_clusters, "documents": documents, "usage": shape, "other_owners": kind}
        | dict(zip(names, np.round(np.mean(rows, axis=0), 5).tolist(), strict=True))
        for (shape, kind), rows in found.items()
    ]


def certificates(n_clusters: int, documents: int, repetitions: int) -> list[dict[str, Any]]:
    """Coverage of the intervals of a divergence, and of a reduction between two."""
    rng = np.random.default_rng(1)
    rows = []
    for shape, truth in truths(n_clusters, rng).items():
        far = rng.dirichlet(np.ones(n_clusters))
        for distance, share in (("far", 0.0), ("half way", 0.5), ("near", 0.9)):
            training = np.round(1e6 * (share * truth + (1 - share) * far)).astype(np.int64) + 1
            true_value = float(jsd(truth, training / training.sum()))
            true_reduction = float(jsd(truth, far)) - true_value
            inside, paired, width = [], [], []
            for _ in range(repetitions):
                heldout = rng.multinomial(documents, truth)
                estimate = divergence(heldout, training, rng)
                inside.append(estimate.low <= true_value <= estimate.high)
                width.append(estimate.high - estimate.low)
                if share:
                    change = reduction(heldout, far, training.astype(np.float64), rng)
                    paired.append(change.low <= true_reduction <= change.high)
            rows.append(
                {
                    "clusters": n_clusters,
                    "held_out": documents,
                    "truth": shape,
                    "training": distance,
                    "true_jsd": round(true_value, 4),
                    "coverage": round(float(np.mean(inside)), 3),
                    "width": round(float(np.mean(width)), 4),
                    "coverage_of_reduction": round(float(np.mean(paired)), 3) if paired else None,
                }
            )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join("–" if value is None else str(value) for value in row.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/coverage.json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    of_masses = [
        row
        for n in (30, 100)
        for m in (12, 30, 285, 1000, 10_000)
        for row in masses(n, m, max(1, arguments.repetitions // 2))
    ]
    of_certificates = [
        row for n in (30, 100) for m in (85, 300, 600, 3000) for row in certificates(n, m, arguments.repetitions)
    ]
    show(of_masses)
    show(of_certificates)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {"machine": machine, "seconds": round(time.monotonic() - started, 1)}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    body |= {"repetitions": arguments.repetitions, "masses": of_masses, "certificates": of_certificates}
    arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
