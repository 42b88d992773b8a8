"""All strategies side by side: distance from held-out usage, hidden topics, languages, seconds.

Five targets: SIB-200 in Swahili, Tamil, Polish and Amharic (``docs/examples/sib200.yaml``: two topics missing), and
Japanese newsletters of 2022 (current data: earlier years; the pool: command descriptions, SIB-200 and OLDI sentences in
all languages, a part of them by hash of the line). Artifacts up to assignments are made once for each seed. Topics are
read here only, to score.

The config of SIB-200 holds out about five sentences a target language, too few to tell strategies apart. There the
certificate is computed again on usage that no run has seen: the train rows about the missing topics, about 120 a target
language, whose sentences occur nowhere else in the run, given clusters by the run's own encoder and codebook.

    python benchmarks/selection.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import platform
import statistics
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from sib200_selection import MISSING, topics_of  # beside this file

from compass_ray import load_config, seeding, storage
from compass_ray.cluster.device import Device
from compass_ray.cluster.stage import assign
from compass_ray.config import RunConfig
from compass_ray.embed.stage import embed
from compass_ray.ingest import stage as ingestion
from compass_ray.pipelines.clustered import Clustered, cluster_documents, plan
from compass_ray.pipelines.compare import compared, with_strategy
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session
from compass_ray.sample.certificate import HeldOut, certify
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.problem import Problem, build_problems
from compass_ray.sample.stage import DRAW, HISTOGRAMS, sample

ROOT = Path(__file__).parent.parent
BY_CLUSTERS_ALONE: dict[str, Any] = {"shortfall": "accept", "language_prior": "none", "max_copies": "off"}
"""All strategies fill the same budget from a pool of translations, in which no language comes first."""
STRATEGIES = (
    "kl", "deficit", "random", "all", "temperature", "unimax", "langsim", "importance", "nearest", "round_robin",
    "dsir",
)  # fmt: skip


def sib200(data: Path, output: str, seed: int) -> RunConfig:
    """Four target languages whose usage lies in two topics that their current data lack."""
    os.environ["DATA"] = str(data)
    return load_config(str(ROOT / "docs" / "examples" / "sib200.yaml"), [f"output={output}", f"seed={seed}"])


def unseen_usage(
    config: RunConfig, device: Device, clustered: Clustered, session: Session
) -> dict[str, NDArray[np.int64]]:
    """Train rows about the missing topics by target language: documents in each cluster, outliers last."""
    usage, current = config.sources["usage"], config.sources["current"]
    source = usage.model_copy(update={"path": current.path})
    planned = ingestion.plan({"unseen": source}, config.ingest, session.output)
    ingestion.ingest(planned, config.ingest, session)
    assigned = assign(embed(planned.artifact, config.embed, session), clustered.codebook, session, device)
    n_clusters = clustered.inputs.n_clusters
    counts = {target_lang: np.zeros(n_clusters + 1, dtype=np.int64) for target_lang in clustered.inputs.target_langs}
    for key in assigned.manifest().receipts:
        for row in assigned.read(key, ["target_lang", "cluster", "outlier"]).to_pylist():
            counts[row["target_lang"]][n_clusters if row["outlier"] else row["cluster"]] += 1
    return counts


def newsletters(data: Path, output: str, seed: int, part: int) -> RunConfig:
    """Japanese newsletters of 2022, after those of earlier years; one in ``part`` lines of the large pools."""
    folder = Path(output) / "newsletters"
    if not folder.exists():
        folder.mkdir(parents=True)
        lines = [json.loads(line) for line in _lines(data / "newsletters.jsonl.gz")]
        for name, years in (("usage", ("2022",)), ("current", ("2019", "2020", "2021"))):
            mine = [row for row in lines if row["lang"] == "ja" and row["date"][:4] in years]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mine))
        for name, paths in (
            ("tldr", [data / "tldr_pages.jsonl.gz"]),
            ("oldi", sorted((data / "oldi_seed").glob("*.jsonl.gz"))),
        ):
            with (folder / f"{name}.jsonl").open("w") as stream:
                for path in paths:
                    lang = {} if name == "tldr" else {"lang": path.name.split(".")[0]}
                    for line in _lines(path):
                        if zlib.crc32(line) % part == 0:
                            stream.write(json.dumps({**json.loads(line), **lang}) + "\n")
    text = {"columns": {"text": "text", "lang": "lang"}}
    raw: dict[str, Any] = {
        "name": "newsletters",
        "output": output,
        "seed": seed,
        "sources": {
            "usage": {"role": "usage", "path": str(folder / "usage.jsonl"), **text},
            "current": {"role": "current", "path": str(folder / "current.jsonl"), **text},
            "tldr": {
                "role": "pool",
                "path": str(folder / "tldr.jsonl"),
                "columns": {"prompt": "prompt", "completion": "completion", "lang": "lang"},
            },
            "oldi": {"role": "pool", "path": str(folder / "oldi.jsonl"), **text},
            "sib": {
                "role": "pool",
                "path": f"{data}/sib200/*/test.tsv",
                "columns": {"text": "text"},
                "lang_pattern": "^(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/",
            },
        },
        "ingest": {"shard_bytes": 4 << 20, "max_bad_fraction": 0.2},
        "sample": {"budget": 1000},
    }
    return load_config(raw)


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as stream:
        yield from stream


def measure(
    config: RunConfig, features: str, strategies: Sequence[str], budgets: Sequence[int], topics: Path | None
) -> list[dict[str, Any]]:
    """One row for each target language, strategy and budget."""
    session = Session(storage.absolute(config.output), config.ray, Display(), config.name)
    run = plan(config)
    clustered = cluster_documents(config, run, session)
    missing = None if topics is None else _missing_ids(clustered.inputs.documents, topics)
    unseen = {} if topics is None else unseen_usage(config, run.device, clustered, session)
    n_clusters, distance = clustered.inputs.n_clusters, clustered.inputs.distance
    nothing = np.zeros(n_clusters)  # the certificate does not ask what selections go by
    rows = []
    for name in strategies:
        for budget in budgets if name != "all" else [0]:
            given = SampleConfig(budget=budget or 1, language_features=features, **BY_CLUSTERS_ALONE)
            sampled = sample(clustered.inputs, with_strategy(given, name), session)
            drawn = sampled.read(DRAW)
            problems = {p.target_lang: p for p in build_problems(sampled.read(HISTOGRAMS), nothing, {}, distance)}
            for found in compared(name, sampled, session.stages[-1]):
                mine = drawn.filter(pc.equal(drawn["target_lang"], found.target_lang))
                ids = mine["doc_id"].to_pylist()
                body = found.certificate
                if found.target_lang in unseen:
                    selected = np.bincount(mine["cluster"].to_numpy(), minlength=n_clusters + 1)
                    problem = dataclasses.replace(
                        problems[found.target_lang], heldout=unseen[found.target_lang], heldout_squares=0
                    )
                    body = body | _judged(problem, selected, config.seed)
                rows.append(
                    {
                        "target_lang": found.target_lang,
                        "strategy": name,
                        "budget": budget,
                        "seed": config.seed,
                        "heldout_documents": body["heldout_documents"],
                        "before": body["before"],
                        "after": body["after"],
                        "random": body["random"],
                        "reduction_over_random": body["reduction_over_random"],
                        "documents": body["selected_documents"],
                        "near_duplicates": body["near_duplicates"],
                        "effective_languages": round(found.effective_languages, 1),
                        "own_language": round(found.languages.get(found.target_lang, 0.0), 4),
                        "missing_topics": None
                        if missing is None
                        else round(sum(i in missing for i in ids) / len(ids), 4),
                        "seconds": found.seconds,
                    }
                )
    return rows


def _judged(problem: Problem, selected: NDArray[np.int64], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seeding.child_seed(seed, "certificate", problem.target_lang))
    heldout = HeldOut(problem.heldout, problem.heldout_effective)
    return certify(heldout, problem.current, selected, np.append(problem.cluster_capacity, 0), rng)


def _missing_ids(documents: Any, topics: Path) -> set[bytes]:
    """Pool documents of a topic that current data lack."""
    found = set()
    for key in documents.manifest().receipts:
        table = documents.read(key, ["doc_id", "role", "uri", "row", "reject"])
        for row in table.filter(table["reject"].is_null()).select(["doc_id", "role", "uri", "row"]).to_pylist():
            if row["role"] == "pool" and topics_of(topics / "sib200" / row["uri"])[row["row"]] in MISSING:
                found.add(row["doc_id"])
    return found


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, a table for each budget: means over seeds, of divergences and of the ends of their intervals.

    The lowest divergence of a target is bold; a star says that in every seed the interval of the reduction over a
    random selection of the same size lies above zero.
    """
    target_langs = list(dict.fromkeys(row["target_lang"] for row in rows))
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    before = {
        target_lang: statistics.mean(row["before"]["jsd"] for row in rows if row["target_lang"] == target_lang)
        for target_lang in target_langs
    }
    lines = ["Before: " + ", ".join(f"{target_lang} {value:.3f}" for target_lang, value in before.items())]
    for budget in sorted({row["budget"] for row in rows if row["budget"]}):
        cells = {
            (strategy, target_lang): [
                row
                for row in rows
                if (row["strategy"], row["target_lang"]) == (strategy, target_lang) and row["budget"] in (budget, 0)
            ]
            for strategy in strategies
            for target_lang in target_langs
        }
        best = {o: min(_mean(cells[s, o], "after", "jsd") for s in strategies) for o in target_langs}
        lines += [f"\n**Budget {budget:,}**\n"]
        heads = ["strategy", *target_langs, "missing topics", "languages", "distinct documents", "passed over", "s"]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for strategy in strategies:
            divergences = [_divergence(cells[strategy, target_lang], best[target_lang]) for target_lang in target_langs]
            group = [row for target_lang in target_langs for row in cells[strategy, target_lang]]
            topics = [row["missing_topics"] for row in group if row["missing_topics"] is not None]
            lines.append(
                f"| `{strategy}` | {' | '.join(divergences)} | {statistics.mean(topics):.3f} "
                f"| {_mean(group, 'effective_languages'):.0f} | {_mean(group, 'documents'):,.0f} "
                f"| {_mean(group, 'near_duplicates'):.0f} | {_mean(group, 'seconds'):.0f} |"
            )
    return lines


def _mean(rows: list[dict[str, Any]], *path: str) -> float:
    values: list[Any] = rows
    for name in path:
        values = [value[name] for value in values]
    return statistics.mean(values)


def _divergence(rows: list[dict[str, Any]], lowest: float) -> str:
    jsd, low, high = (_mean(rows, "after", name) for name in ("jsd", "low", "high"))
    shown = f"**{jsd:.3f}**" if round(jsd, 3) <= round(lowest, 3) else f"{jsd:.3f}"
    clear = all(row["reduction_over_random"]["low"] > 0 for row in rows)
    return f"{shown}{'*' if clear else ''} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--targets", default="sib200,newsletters")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--budgets", default="300,1000,5000")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--part", type=int, default=4, help="one in so many lines of tldr and OLDI")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/selection.json"))
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    budgets = [int(number) for number in arguments.budgets.split(",")]
    rows: list[dict[str, Any]] = []
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    with tempfile.TemporaryDirectory() as output:
        for seed in map(int, arguments.seeds.split(",")):
            for usage in arguments.usage.split(","):
                made = (
                    sib200(data, output, seed) if usage == "sib200" else newsletters(data, output, seed, arguments.part)
                )
                topics = data if usage == "sib200" else None
                rows += measure(made, str(data / "linguistic"), arguments.strategies.split(","), budgets, topics)
                body = {"machine": machine, "part": arguments.part, "rows": rows}
                arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
