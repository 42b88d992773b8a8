"""Does a selection find topics it was never told? SIB-200, four target languages, geography and entertainment missing.

Runs ``docs/examples/sib200.yaml`` with each strategy and number of clusters over one set of embeddings and prints, for
each target language, the share of selected rows of a missing topic. Topic labels are read here only, to score. The pool
is one set of sentences in 170 languages: ``nearest`` fills the budget with translations, ``default`` draws what is
asked for in at most two languages. Of four to six held-out sentences a target language, too few for most certificates:
``certified`` says how many there are, and ``jsd_after`` is their mean.

    python benchmarks/sib200_selection.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from compass_ray import curate, load_config
from compass_ray.sample.config import WITH_CLUSTER_QUOTAS

CONFIG = Path(__file__).parent.parent / "docs" / "examples" / "sib200.yaml"
MISSING = {"geography", "entertainment"}
SETTINGS = {"nearest": ["sample.shortfall=nearest", "sample.max_copies=off"], "default": []}
"""Of strategies with cluster quotas; the others fill the budget as they always do."""


def missing_share(run_path: str, target_lang: str, data: Path) -> float:
    """Share of a target language's selected rows whose hidden topic is one of the missing."""
    import pyarrow.dataset as ds

    rows = ds.dataset(f"{run_path}/selection/{target_lang}", format="parquet").to_table(["uri", "row"]).to_pylist()
    return sum(topics_of(data / "sib200" / row["uri"])[row["row"]] in MISSING for row in rows) / len(rows)


@cache
def topics_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["category"] for row in csv.DictReader(stream, delimiter="\t")]


def measure(
    data: Path, output: str, strategies: list[str], clusters: list[int], seeds: list[int], overrides: list[str]
) -> list[dict[str, Any]]:
    """Missing-topic share by number of clusters and strategy: means over seeds, by target language and over all."""
    os.environ["DATA"] = str(data)
    rows: list[dict[str, Any]] = []
    runs = [
        (strategy, setting)
        for strategy in strategies
        for setting in (SETTINGS if strategy in WITH_CLUSTER_QUOTAS else [None])
    ]
    for n_clusters, (strategy, setting) in itertools.product(clusters, runs):
        started = time.monotonic()
        shares, divergences, drawn = [], [], []
        for seed in seeds:
            choices = [f"sample.strategy={strategy}", f"cluster.n_clusters={n_clusters}", f"seed={seed}"]
            choices += [] if setting is None else SETTINGS[setting]
            sets = [f"output={output}", f"name={strategy}-{setting}-{n_clusters}-{seed}", *choices, *overrides]
            run = curate(load_config(str(CONFIG), sets))
            drawn += [body["selected_documents"] for body in run.certificate.values()]
            shares.append({target_lang: missing_share(run.path, target_lang, data) for target_lang in run.languages})
            divergences += [body["after"]["jsd"] for body in run.certificate.values() if body["after"]]
        by_seed = [statistics.mean(share.values()) for share in shares]
        rows.append(
            {
                "clusters": n_clusters,
                "strategy": strategy,
                "shortfall": setting,
                "rows": round(statistics.mean(drawn), 1),
                **{
                    target_lang: round(statistics.mean(share[target_lang] for share in shares), 4)
                    for target_lang in shares[0]
                },
                "mean": round(statistics.mean(by_seed), 4),
                "lowest seed": round(min(by_seed), 4),
                "highest seed": round(max(by_seed), 4),
                "jsd_after": round(statistics.mean(divergences), 4) if divergences else None,
                "certified": f"{len(divergences)} of {len(drawn)}",
                "seconds": round(time.monotonic() - started, 1),
            }
        )
    for row in rows:
        baseline = [r["mean"] for r in rows if (r["clusters"], r["strategy"]) == (row["clusters"], "random")]
        row["times random"] = round(row["mean"] / baseline[0], 2) if baseline else None
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--strategies", default="kl,deficit,random")
    parser.add_argument("--clusters", default="30,50,100")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/sib200_selection.json"))
    arguments = parser.parse_args()
    clusters, seeds = ([int(number) for number in value.split(",")] for value in (arguments.clusters, arguments.seeds))
    strategies = arguments.strategies.split(",")
    with tempfile.TemporaryDirectory() as output:
        rows = measure(arguments.data.resolve(), output, strategies, clusters, seeds, arguments.overrides)
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
