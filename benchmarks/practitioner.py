"""Would a practitioner keep the selection? Questions in Swahili and Yoruba, and a pool that holds few of their kind.

Usage are AfriQA's questions, current data are SIB-200 sentences of two topics, the pool is a mixture that people have:
English OLDI sentences, English tldr prompts, EXAMS questions, and SIB-200 in 60 languages, all translations of each
other. Ids and topics are read here only, to score. Prints for each setting and target language how much of it is in the
language, which share of rows went to clusters that are hardly used, and how often one sentence was drawn. Then how
often, of 1,000 different sentences, one is passed over as the copy of another.

    python benchmarks/practitioner.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import CurationRun, curate, load_config
from compass_ray.centering import LanguageMeans, language_means, language_sums
from compass_ray.embed.encoder import Encoder
from compass_ray.embed.kinds import load_encoder
from compass_ray.embed.meaning import encode_all, meaning_threshold, parallel_vectors
from compass_ray.languages import canonical_language
from compass_ray.sample.near_duplicates import Places, Sameness, keep_distinct
from compass_ray.vectors import to_column

RESULTS = Path(__file__).parent / "results" / "practitioner.json"
BUDGET, LANGUAGES, CURRENT_TOPICS = 2000, 60, ("politics", "sports")
ALWAYS = ("swh_Latn", "yor_Latn", "eng_Latn", "fra_Latn", "zho_Hans", "jpn_Jpan", "tur_Latn", "vie_Latn", "hin_Deva")
USAGE = {"sw": "swa", "yo": "yor"}
BEFORE = ["sample.language_prior=none", "sample.shortfall=accept", "sample.max_copies=off"]
SETTINGS = {
    "as before": BEFORE,
    "default": [],
    "other languages fill the budget": ["sample.own_language_epochs=1"],
    "stop": ["sample.shortfall=stop"],
    "nearest, all languages alike": ["sample.shortfall=nearest", "sample.language_prior=none"],
    "accept, all languages alike": ["sample.shortfall=accept", "sample.language_prior=none"],
}
HARDLY_USED = 0.01

Row = dict[str, Any]


def write_case(data: Path, folder: Path) -> dict[str, str]:
    """Write pool, current data and usage; returns the id of every pool text."""
    pool, current = [], []
    for code in sib_languages(data):
        for row in sib(data, code):
            known = code in ("swh_Latn", "yor_Latn") and row["category"] in CURRENT_TOPICS
            entry = {"lang": code, "text": row["text"], "id": f"sib-{row['index_id']}"}
            (current if known else pool).append(entry)
    for row in lines(data / "oldi_seed" / "eng_Latn.jsonl.gz"):
        pool.append({"lang": "en", "text": row["text"], "id": f"oldi-{row['line']}"})
    english = [row for row in lines(data / "tldr_pages.jsonl.gz") if row["lang"] == "en"]
    pool += [{"lang": "en", "text": row["prompt"], "id": f"tldr-{n}"} for n, row in enumerate(english[::4])]
    for part in ("train", "dev"):
        for row in lines(data / "exams" / f"{part}.jsonl.gz"):
            lang = "mk" if "Macedonia" in row["info"]["language"] else canonical_language(row["info"]["language"])
            pool.append({"lang": lang, "text": row["question"]["stem"], "id": f"exams-{row['id']}"})
    usage = [
        {"lang": lang, "text": row["question"]}
        for lang, code in USAGE.items()
        for part in ("train", "dev")
        for row in lines(data / "afriqa" / f"queries.afriqa.{code}.en.{part}.jsonl.gz")
    ]
    for name, rows in (("pool", pool), ("current", current), ("usage", usage)):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {row["text"].strip(): row["id"] for row in reversed(pool)}


def sib_languages(data: Path) -> list[str]:
    """Sixty languages: some that people ask for, the rest evenly spread over the alphabet."""
    others = sorted(path.name for path in (data / "sib200").iterdir() if path.name not in ALWAYS)
    count = LANGUAGES - len(ALWAYS)
    return sorted([*ALWAYS, *(others[len(others) * i // count] for i in range(count))])


def sib(data: Path, code: str) -> list[dict[str, str]]:
    with (data / "sib200" / code / "train.tsv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def lines(path: Path) -> Iterator[Row]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def select(folder: Path, setting: str) -> CurationRun:
    source = {"columns": {"text": "text", "lang": "lang"}}
    roles = {"pool": "pool", "current": "current", "usage": "usage"}
    raw = {
        "name": setting.replace(" ", "-").replace(",", ""),
        "output": str(folder / "out"),
        "sources": {
            name: {"role": role, "path": str(folder / f"{name}.jsonl"), **source} for name, role in roles.items()
        },
        "sample": {"budget": BUDGET},
    }
    return curate(load_config(raw, SETTINGS[setting]))


def judge(run: CurationRun, setting: str, ids: dict[str, str]) -> list[Row]:
    usage = {(gap["target_lang"], gap["cluster"]): gap["p_usage"] for gap in run.gaps.to_pylist()}
    found = []
    for lang, body in run.certificate.items():
        rows = run.selection(lang).take_all()
        times = Counter(name for row in rows if (name := ids.get(row["text"].strip(), "")).startswith("sib-"))
        found.append(
            {
                "setting": setting,
                "usage": lang,
                "rows": len(rows),
                "own language": sum(row["lang"] == lang for row in rows),
                "languages": len(body["languages"]),
                "in clusters under 1 % of usage": sum(
                    usage[lang, row["cluster"]] < HARDLY_USED and row["lang"] != lang for row in rows
                ),
                "unmet": body["unmet"],
                "SIB sentences": len(times),
                "drawn at most twice": round(statistics.mean(n <= 2 for n in times.values()), 4) if times else None,
                "most often": max(times.values(), default=0),
                "passed over as copies": body["copies"],
                "jsd after": body["after"] and body["after"]["jsd"],
                "seconds": round(sum(stage.seconds for stage in run.stages if stage.stage == "sample"), 1),
            }
        )
    return found


def false_merges(data: Path) -> list[Row]:
    """Different sentences in languages drawn at random: how many are passed over as the copy of another."""
    encoder = load_encoder("bundled")
    fitted = meaning_threshold(parallel_vectors(encoder)).similarity
    rng = np.random.default_rng(0)
    codes = sorted(path.name.split(".")[0] for path in (data / "oldi_seed").iterdir())
    corpora = {
        "OLDI": {code: [row["text"] for row in lines(data / "oldi_seed" / f"{code}.jsonl.gz")] for code in codes},
        "SIB-200": {code: [row["text"] for row in sib(data, code)] for code in sib_languages(data)},
    }
    found = []
    for corpus, texts in corpora.items():
        count = min(1000, min(map(len, texts.values())))
        lang = rng.integers(0, len(texts), count)
        names = sorted(texts)
        order = rng.permutation(min(map(len, texts.values())))[:count]
        chosen = [texts[names[column]][row] for column, row in zip(lang, order, strict=True)]
        x = encode_all(encoder, chosen)
        centred = _means(encoder, texts).subtracted(x, [names[column] for column in lang])
        one, room = np.zeros(count, dtype=np.int64), np.full(count, count)
        places = Places(lang, one, room, np.ones(count, dtype=np.int64), np.zeros(count, dtype=bool))
        for copies in (1, 2):
            merged = keep_distinct(x, centred, places, Sameness(np.inf, fitted, copies)) >= 0
            found.append(
                {
                    "corpus": corpus,
                    "different sentences": count,
                    "max_copies": copies,
                    "similarity": round(fitted, 4),
                    "passed over": round(float(merged.mean()), 4),
                }
            )
    return found


def _means(encoder: Encoder, texts: dict[str, list[str]]) -> LanguageMeans:
    """The means of languages, each of 200 of its texts: neighbours in a corpus are of one article."""
    parts = []
    for lang, mine in texts.items():
        places = np.random.default_rng(1).permutation(len(mine))[:200]
        vectors = encode_all(encoder, [mine[place] for place in places])
        parts.append(language_sums(pa.table({"lang": [lang] * len(vectors), "vector": to_column(vectors)})))
    return language_means(parts)


def markdown(rows: list[Row]) -> list[str]:
    heads = list(rows[0])
    return [
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
        *(f"| {' | '.join(str(value) for value in row.values())} |" for row in rows),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--settings", default=";".join(SETTINGS), help="By semicolon")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        ids = write_case(data, Path(folder))
        for setting in arguments.settings.split(";"):
            rows += judge(select(Path(folder), setting), setting, ids)
    merges = false_merges(data)
    print("\n".join([*markdown(rows), "", *markdown(merges)]))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {"machine": machine, "selections": rows, "false_merges": merges}
    arguments.json.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
