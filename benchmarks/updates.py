"""What does an update forget for what it gains? Every method, on real text, with the product's own commands.

A scenario is a language, usage that a champion is made for, and usage that comes after it; the pool holds text of both
kinds and of others. For every seed a champion is curated, trained and promoted; then each method updates it, and the
gate's own measurement is written down: bits per byte on held-out new usage (gain), on held-out former usage
(forgetting) and on English texts, mean over documents with the gate's interval. Seeds decide hold-out, draws and
initial weights. Methods go over the same selection for the same epochs, except ``fresh``, which goes over old data too.

    python benchmarks/updates.py --data ../shared/data --work WORK
    python benchmarks/updates.py --data ../shared/data --work WORK --base FOLDER --seeds 0   # another base

Cells are kept in ``--work`` and found again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from compass_ray import gate_candidates, load_config, train_adapters, update_adapters
from compass_ray.registry.store import Registry

DEMO_BASE = Path(__file__).parents[1] / "compass_ray" / "demo" / "base"
COLUMNS = {"text": "text", "lang": "lang"}
METHODS: dict[str, list[str]] = {
    "naive": ["update.method=naive"],
    "replay": ["update.method=replay"],
    "replay, a third": ["update.method=replay", "update.replay_fraction=0.33"],
    "ewc": ["update.method=ewc"],
    "ecda": ["update.method=ecda"],
    "ecda, weight 1000": ["update.method=ecda", "update.ewc_weight=1000"],
    "ecda, replay 1 of a third": ["update.method=ecda", "update.replay_weight=1", "update.replay_fraction=0.33"],
    "fresh": ["update.method=fresh"],
}


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def sib(data: Path, code: str) -> list[str]:
    with (data / "sib200" / code / "train.tsv").open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream, delimiter="\t")]


def swahili(data: Path) -> dict[str, list[str]]:
    """News sentences first, then questions."""
    sentences = sib(data, "swh_Latn")
    train, dev = (
        [row["question"] for row in lines(data / "afriqa" / f"queries.afriqa.swa.en.{part}.jsonl.gz")]
        for part in ("train", "dev")
    )
    return {"former": sentences[:350], "new": dev, "pool": [*sentences[350:], *train]}


def english(data: Path) -> dict[str, list[str]]:
    """Newsletters first, then what commands do."""
    letters = [row["text"] for row in lines(data / "newsletters.jsonl.gz") if row["lang"] == "en"]
    pages = [row["prompt"] for row in lines(data / "tldr_pages.jsonl.gz") if row["lang"] == "en"]
    return {
        "former": letters[:400],
        "new": pages[:400],
        "pool": [*letters[400:1200], *pages[400:1200]],
    }


SCENARIOS = {"sw": swahili, "en": english}


def write(path: Path, texts: list[str], lang: str) -> str:
    rows = "".join(json.dumps({"text": text, "lang": lang}, ensure_ascii=False) + "\n" for text in texts)
    path.write_text(rows, encoding="utf-8")
    return str(path)


def config(given: argparse.Namespace, lang: str, seed: int, *sets: str) -> Any:
    folder = given.work / lang
    raw = {
        "name": "updates",
        "output": str(folder / f"seed-{seed}"),
        "seed": seed,
        "holdout_fraction": 0.4,
        "sources": {
            "pool": {"role": "pool", "path": str(folder / "pool.jsonl"), "columns": COLUMNS},
            "other": {"role": "pool", "path": str(folder / "other.jsonl"), "columns": COLUMNS},
            "usage": {"role": "usage", "path": str(folder / "former.jsonl"), "columns": COLUMNS},
        },
        "cluster": {"n_clusters": 30},
        "sample": {"budget": given.budget},
        "adapt": {
            "base": str(given.base),
            "languages": [lang],
            "max_length": 128,
            "replay_fraction": 0.2,
            "training": {"batch_size": 4, "epochs": 3, "learning_rate": given.learning_rate},
        },
        "monitor": {
            "usage": {"new": {"path": str(folder / "new.jsonl"), "columns": COLUMNS}},
            "reference": "champion",
        },
        "update": {"when": "always"},
        "gate": {"texts": {"english": {"path": str(folder / "english.jsonl"), "columns": COLUMNS}}},
    }
    return load_config(raw, sets)


def prepare(given: argparse.Namespace, lang: str) -> None:
    folder = given.work / lang
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in SCENARIOS[lang](given.data).items():
        write(folder / f"{name}.jsonl", texts, lang)
    seed_text = [row["text"] for row in lines(given.data / "oldi_seed" / "eng_Latn.jsonl.gz")]
    write(folder / "english.jsonl", seed_text[:300], "en")
    write(folder / "other.jsonl", seed_text[300:1500], "en")


def champion(given: argparse.Namespace, lang: str, seed: int) -> None:
    asked = config(given, lang, seed)
    registry = Registry(train_adapters(asked).record["registry"])
    (place,) = registry.places()
    if registry.aliases(*place).champion is None:
        registry.promote(f"{lang}@candidate")


def measured(given: argparse.Namespace, lang: str, seed: int, sets: list[str]) -> dict[str, Any]:
    started = time.monotonic()
    run = update_adapters(config(given, lang, seed, *sets))
    seconds = time.monotonic() - started
    gated = gate_candidates(config(given, lang, seed), promote=False)
    found = {line["about"]: line["comparison"] for line in gated.verdict(lang)["lines"] if line["comparison"]}
    curve = run.curve(lang).to_pylist()
    return {
        "new_usage": found["new_usage"],
        "former_usage": found["former_usage"],
        "english": found.get("other"),
        "trained_tokens": sum(entry["trained_tokens"] for entry in curve),
        "training_seconds": round(sum(entry["seconds"] for entry in curve), 1),
        "seconds": round(seconds, 1),
        "penalty": curve[-1].get("penalty"),
        "documents": run.languages[lang]["documents"]["train"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("COMPASS_DATA"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=DEMO_BASE)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default=";".join(METHODS))
    parser.add_argument("--budget", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "updates.json")
    given = parser.parse_args()
    cells = given.work / "cells.json"
    found: dict[str, Any] = json.loads(cells.read_text()) if cells.exists() else {}
    for lang in given.scenarios.split(","):
        prepare(given, lang)
        for seed in map(int, given.seeds.split(",")):
            champion(given, lang, seed)
            for method in given.methods.split(";"):
                key = f"{lang}/{seed}/{method}"
                if key not in found:
                    found[key] = measured(given, lang, seed, METHODS[method])
                    cells.write_text(json.dumps(found, indent=1))
                one = found[key]
                print(key, one["new_usage"], one["former_usage"], one["english"], one["seconds"], flush=True)
    write_results(given, found)


def write_results(given: argparse.Namespace, found: dict[str, Any]) -> None:
    rows = []
    for lang in given.scenarios.split(","):
        for method in METHODS:
            mine = [cell for key, cell in found.items() if key.startswith(f"{lang}/") and key.split("/")[2] == method]
            if mine:
                row: dict[str, Any] = {"scenario": lang, "method": method, "seeds": len(mine)}
                for name in ("new_usage", "former_usage", "english"):
                    row[name] = round(mean(cell[name]["mean"] for cell in mine if cell[name]), 4)
                row["training_seconds"] = round(mean(cell["training_seconds"] for cell in mine), 1)
                rows.append(row)
    body = {
        "base": given.base.name,
        "budget": given.budget,
        "learning_rate": given.learning_rate,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "means": rows,
        "cells": found,
    }
    given.out.write_text(json.dumps(body, indent=1) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
