"""Does monitoring alarm when usage has moved, and only then? On simulated and on real usage.

Simulated: how often the interval of a divergence holds the truth, how often its lower end lies above it, and how often
the test is significant where nothing has moved.

Real, embedded and clustered by the engine's own encoder and kernels, without Ray, in codebooks that know the reference
and have not seen a window, but for earlier years, which are current data. Newsletters: the reference is half of a
language's documents of 2022, windows are disjoint parts of the other half (nothing has moved, whatever chance does to
the one reference there is) and documents of earlier years, as many and three times as many. SIB-200: the reference is
half of a language's sentences about five topics, windows are of the other half with a part of two other topics. What
alarms is compared with what users do by hand: a fixed threshold on the JSD of samples, a test alone, and a reference
that is counted in the clusters it has formed.

    python benchmarks/drift.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from sib200_selection import MISSING  # beside this file
from usage_problems import TARGET_LANGS, Vectors, news_pool, newsletters, sib200  # beside this file
from usage_shares import clustered, count, table  # beside this file

from compass_ray.cluster import kernels
from compass_ray.cluster.sampling import ROLE_MASS
from compass_ray.divergence import jsd
from compass_ray.monitor.config import MonitorConfig
from compass_ray.monitor.drift import novelty, shift
from compass_ray.monitor.separation import separation
from compass_ray.monitor.vectors import NEW, REFERENCE

SIZES = ((285, 285), (1000, 285), (1000, 1000), (5000, 1000))
SHIFTS = (0.0, 0.05, 0.15, 0.4)
REPEATS = 100
N_CLUSTERS = 100
OUTLIERS = 0.01  # of usage and current data, as cluster.outlier_quantile has it
FIXED_THRESHOLD = 0.1  # bits, of the samples
DEFAULTS = MonitorConfig.model_validate({"usage": {"any": {"path": "any", "lang": "sw"}}})


def simulated(rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Rows by clusters, sizes and shift, over three kinds of usage."""
    for n_clusters, sizes, moved in itertools.product((30, 100), SIZES, SHIFTS):
        held, above, significant, truths, errors = [], [], [], [], []
        for number in range(REPEATS):
            before = _usage(("flat", "zipf", "sparse")[number % 3], n_clusters, rng)
            after = (1 - moved) * before + moved * rng.dirichlet(np.full(n_clusters, 0.3))
            truth = float(jsd(before, after))
            found = shift(rng.multinomial(sizes[0], before), rng.multinomial(sizes[1], after), rng)
            held.append(found.low <= truth <= found.high)
            above.append(found.low > truth)
            significant.append(found.p_value <= 0.05)
            truths.append(truth)
            errors.append(found.jsd - truth)
        yield {
            "clusters": n_clusters,
            "reference": sizes[0],
            "window": sizes[1],
            "moved": moved,
            "jsd": round(float(np.mean(truths)), 4),
            "error": round(float(np.mean(errors)), 4),
            "held": round(float(np.mean(held)), 3),
            "low_above": round(float(np.mean(above)), 3),
            "p_below_0.05": round(float(np.mean(significant)), 3),
        }


def _usage(kind: str, n_clusters: int, rng: np.random.Generator) -> NDArray[np.float64]:
    if kind == "sparse":
        return rng.dirichlet(np.full(n_clusters, 0.3))
    weights = np.ones(n_clusters) if kind == "flat" else 1 / np.arange(1, n_clusters + 1)
    return weights / weights.sum()


@dataclass(frozen=True)
class Case:
    """A reference with what else is clustered, and windows by what they are."""

    group: str
    pool: Vectors
    current: Vectors
    reference: Vectors
    windows: Sequence[tuple[str, Vectors]]


def news_cases(data: Path, sib: Any, seeds: int) -> Iterator[Case]:
    """Halves of 2022, and earlier years where there are some."""
    pool, _ = news_pool(data, sib)
    by_year = newsletters(data)
    for lang, seed in itertools.product(("en", "zh", "ja", "fr"), range(seeds)):
        rng = np.random.default_rng([seed, 1])
        now = rng.permutation(by_year[lang, "2022"])
        half = len(now) // 2
        size = (len(now) - half) // 3
        windows = [("2022, another part", now[half + part * size :][:size]) for part in range(3)]
        for year in ("2021", "2020", "2019", "2018"):
            if (lang, year) in by_year:
                earlier = rng.permutation(by_year[lang, year])
                windows += [(year, earlier[:size]), (f"{year}, three times as many", earlier[: 3 * size])]
        windows = [(name, rows) for name, rows in windows if len(rows) >= DEFAULTS.min_documents]
        current = [rows for (other, year), rows in by_year.items() if other == lang and year != "2022"]
        yield Case("newsletters", pool, np.concatenate(current), now[:half], windows)


def few_cases(data: Path, sib: Any, draws: int) -> Iterator[Case]:
    """English of 2022, 300 documents, and 200 of three years that are long past, or of the rest of 2022."""
    pool, _ = news_pool(data, sib)
    by_year = newsletters(data)
    past = np.concatenate([by_year["en", year] for year in ("2018", "2019", "2020")])
    for draw in range(draws):
        rng = np.random.default_rng([draw, 3])
        now = rng.permutation(by_year["en", "2022"])
        windows = [("2018 to 2020", rng.permutation(past)[:200]), ("2022, another part", now[300:500])]
        yield Case("English, 300 of 2022 and 200", pool, by_year["en", "2021"], now[:300], windows)


def sib_cases(sib: Any, seeds: int) -> Iterator[Case]:
    """Sentences of five topics, and windows with a part of two others."""
    langs, x, split, topic = sib
    test, other = split == "test", np.isin(topic, list(MISSING))
    for lang, seed in itertools.product(TARGET_LANGS, range(seeds)):
        place = langs.index(lang)
        rng = np.random.default_rng([seed, 2])
        usual, new = (rng.permutation(x[place][~test & mask]) for mask in (~other, other))
        half = len(usual) // 2
        windows = []
        for part in (0.0, 0.1, 0.2, 0.4):
            rows = round(120 * part)
            mixed = np.concatenate([rng.permutation(usual[half:])[: 120 - rows], rng.permutation(new)[:rows]])
            windows.append((f"{part:.0%} of other topics", mixed))
        pool = np.delete(x, place, axis=0)[:, test].reshape(-1, x.shape[2])
        yield Case("SIB-200", pool, np.empty((0, x.shape[2]), np.float32), usual[:half], windows)


def judged(case: Case, seed: int) -> Iterator[dict[str, Any]]:
    """A row for each window: what each way of judging says."""
    parts = [("pool", case.pool), ("usage", case.reference), ("current", case.current)]
    of_row = kernels.row_weights({(role, "x"): len(rows) for role, rows in parts if len(rows)}, ROLE_MASS)
    weights = np.concatenate([np.full(len(rows), of_row.get((role, "x"), 0.0)) for role, rows in parts])
    fit = clustered(np.concatenate([rows for _, rows in parts]), weights, N_CLUSTERS, seed)
    own = weights[len(case.pool) :][: len(case.reference)]
    labels, similarity, _ = kernels.nearest_leave_one_out(case.reference, own, fit.centroids, fit.lengths)
    known = np.concatenate([similarity, kernels.nearest(case.current, fit.centroids)[1]])
    threshold = np.quantile(known, OUTLIERS)
    left_out = _histogram(labels, similarity, threshold)
    seen = np.append(count(case.reference, fit.centroids), 0)
    rng = np.random.default_rng(seed)
    for name, rows in case.windows:
        window = _histogram(*kernels.nearest(rows, fit.centroids), threshold)
        found, new = shift(left_out, window, rng), novelty(left_out, window)
        level = DEFAULTS.false_discovery_rate / 2  # of two tests
        apart = separation(case.reference[:REFERENCE], rows[:NEW], rng)
        moved = found.low >= DEFAULTS.min_divergence
        tests = [(found.p_value, moved), (new.p_value, new.low >= DEFAULTS.min_novelty)]
        with_vectors = [*tests, (apart.p_value, apart.low >= DEFAULTS.min_auc)]
        counted_as_seen = shift(seen, window, rng)
        yield {
            "group": case.group,
            "window": name,
            "documents": len(rows),
            "plugin": found.plugin,
            "jsd": found.jsd,
            "low": found.low,
            "far": new.share,
            "auc": apart.auc,
            "auc low": apart.low,
            "alarms": _alarms(with_vectors),
            "of clusters alone": _alarms(tests),
            "AUC alone, p <= 0.05": apart.p_value <= 0.05,
            "AUC floor 0.5": apart.p_value <= level and apart.low >= 0.5,
            "AUC floor 0.6": apart.p_value <= level and apart.low >= 0.6,
            "floor 0.01": found.p_value <= level and found.low >= 0.01,
            "floor 0.05": found.p_value <= level and found.low >= 0.05,
            "p <= 0.05 alone": found.p_value <= 0.05,
            f"JSD > {FIXED_THRESHOLD}": found.plugin > FIXED_THRESHOLD,
            "as seen, p <= 0.05": counted_as_seen.p_value <= 0.05,
            "as seen, both keys": counted_as_seen.p_value <= level and counted_as_seen.low >= DEFAULTS.min_divergence,
        }


def _alarms(tests: Sequence[tuple[float, bool]]) -> bool:
    """As `monitor` judges a single language: chance over the tests of the window, each with a floor of its own."""
    adjusted = false_discovery_control(np.array([p_value for p_value, _ in tests]))
    return any(
        large and p_value <= DEFAULTS.false_discovery_rate for (_, large), p_value in zip(tests, adjusted, strict=True)
    )


def _histogram(labels: NDArray[np.int32], similarity: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    return np.bincount(np.where(similarity < threshold, N_CLUSTERS, labels), minlength=N_CLUSTERS + 1)


SETTING = ("group", "window")


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By group and kind of window."""
    found = []
    for setting in dict.fromkeys((row["group"], row["window"]) for row in rows):
        same = [row for row in rows if (row["group"], row["window"]) == setting]
        values = {
            name: round(float(np.mean([row[name] for row in same])), 3) for name in same[0] if name not in SETTING
        }
        found.append(dict(zip(SETTING, setting, strict=True)) | {"windows": len(same)} | values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/drift.json"))
    arguments = parser.parse_args()
    sib = sib200(arguments.data)
    rows: list[dict[str, Any]] = []
    cases = itertools.chain(
        few_cases(arguments.data, sib, 10),
        sib_cases(sib, arguments.seeds),
        news_cases(arguments.data, sib, arguments.seeds),
    )
    for number, case in enumerate(cases):
        rows += judged(case, number)
        print(f"{number + 1} cases", end="\r", flush=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {"machine": machine, "real": means(rows), "simulated": list(simulated(np.random.default_rng(0)))}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print("\n\n".join("\n".join(table(body[name])) for name in ("real", "simulated")))


if __name__ == "__main__":
    main()
