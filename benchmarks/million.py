"""A million documents on one machine: rows, seconds, rows/s and memory of every stage, and what grows with n.

    python benchmarks/million.py --data ../shared/data

makes a corpus by repeating and joining real sentences and curates it with the bundled encoder, at a tenth of the size
and in full, each in a process of its own. Bars: at most 6 GB in all (proportional set size over the tree of processes),
no object spilled to disk, the driver's memory flat in n.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

RESULTS = Path(__file__).parent / "results" / "million.json"
TARGET_LANGS = ("swh_Latn", "tam_Taml")
FILES = 8
LIMIT_BYTES = 6 * 10**9


def sentences(data: Path) -> dict[str, list[str]]:
    """Real texts by language: OLDI seed, SIB-200 train rows, tldr pages and newsletters."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((data / "oldi_seed").glob("*.jsonl.gz")):
        found[path.name.removesuffix(".jsonl.gz")] += [row["text"] for row in _rows(path)]
    for folder in sorted((data / "sib200").iterdir()):
        if folder.is_dir():
            found[folder.name] += _sib(folder / "train.tsv")
    for row in _rows(data / "tldr_pages.jsonl.gz"):
        found[row["lang"]].append(f"{row['prompt']}\n{row['completion']}")
    for row in _rows(data / "newsletters.jsonl.gz"):
        found[row["lang"]].append(row["text"])
    return dict(found)


def documents(texts: dict[str, list[str]], count: int) -> Iterator[dict[str, str]]:
    """Every real text once, then joins of two texts of a language, languages as large as they are in the data."""
    pairs = [(lang, text) for lang, members in texts.items() for text in members]
    rng = random.Random(0)  # noqa: S311 not for secrets
    rng.shuffle(pairs)
    for lang, text in pairs[:count]:
        yield {"text": text, "lang": lang}
    for _ in range(count - len(pairs)):
        lang, text = pairs[rng.randrange(len(pairs))]
        yield {"text": f"{text} {rng.choice(texts[lang])}", "lang": lang}


def write_corpus(data: Path, folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    streams = [(folder / f"part-{number}.jsonl").open("wb") for number in range(FILES)]
    for number, document in enumerate(documents(sentences(data), count)):
        streams[number % FILES].write(orjson.dumps(document) + b"\n")
    for stream in streams:
        stream.close()


def config(data: Path, corpus: Path, output: Path) -> dict[str, Any]:
    usage = [
        str(data / "sib200" / target_lang / split) for target_lang in TARGET_LANGS for split in ("dev.tsv", "test.tsv")
    ]
    return {
        "name": "million",
        "output": str(output),
        "sources": {
            "pool": {"role": "pool", "path": f"{corpus}/*.jsonl", "columns": {"text": "text", "lang": "lang"}},
            "usage": {
                "role": "usage",
                "path": usage,
                "columns": {"text": "text"},
                "lang_pattern": r"^(?P<lang>\w+)/",
            },
        },
        "sample": {"budget": 10_000},
    }


def measure(raw: dict[str, Any]) -> dict[str, Any]:
    """Curate in this process; what its stages took, and what Ray spilled."""
    from ray._private.internal_api import memory_summary

    from compass_ray import curate, load_config

    run = curate(load_config(raw))
    spilled = [line for line in memory_summary(stats_only=True).splitlines() if "Spilled" in line]
    return {"stages": list(run.record["stages"].values()), "selected": run.record["selected"], "spilled": spilled}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("COMPASS_DATA", "../shared/data")))
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compass-million")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(json.loads(arguments.one.read_text()))))
        return
    runs = []
    for rows in arguments.rows:
        corpus, output = arguments.work / f"corpus-{rows}", arguments.work / f"out-{rows}"
        if not corpus.exists():
            write_corpus(arguments.data, corpus, rows)
        shutil.rmtree(output, ignore_errors=True)
        raw = arguments.work / f"{rows}.json"
        raw.write_text(json.dumps(config(arguments.data.resolve(), corpus.resolve(), output.resolve())))
        command = [sys.executable, __file__, "--one", str(raw)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        size = sum(file.stat().st_size for file in corpus.iterdir())
        runs.append({"documents": rows, "bytes": size, **json.loads(done.stdout.splitlines()[-1])})
        print(table(runs[-1]))
        shutil.rmtree(output)
    body = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "limit_bytes": LIMIT_BYTES,
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")


def table(run: dict[str, Any]) -> str:
    """The stages of a run as Markdown."""
    lines = [f"{run['documents']:,} documents, {run['bytes'] / 1e6:,.0f} MB", ""]
    lines += ["| stage | rows | seconds | rows/s | peak, all | peak, driver |", "|---|---|---|---|---|---|"]
    for stage in run["stages"]:
        peaks = " | ".join(f"{stage[name] / 1e9:.2f} GB" for name in ("peak_bytes", "driver_peak_bytes"))
        speed = stage["rows"] / stage["seconds"] if stage["seconds"] else 0
        lines.append(f"| {stage['stage']} | {stage['rows']:,} | {stage['seconds']:,.1f} | {speed:,.0f} | {peaks} |")
    total = sum(stage["seconds"] for stage in run["stages"])
    peak = max(stage["peak_bytes"] for stage in run["stages"])
    lines.append(
        f"| all | {run['documents']:,} | {total:,.1f} | {run['documents'] / total:,.0f} | {peak / 1e9:.2f} GB | |"
    )
    return "\n".join([*lines, "", f"spilled: {'; '.join(run['spilled']) or 'nothing'}", ""])


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path) as stream:
        yield from map(orjson.loads, stream)


def _sib(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream, delimiter="\t")]


if __name__ == "__main__":
    main()
