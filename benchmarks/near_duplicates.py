"""MinHash near-duplicates: CPU seconds beside datasketch, and which pairs are found beside what theory says.

    pip install datasketch
    python benchmarks/near_duplicates.py --data ../shared/data

Documents are joined sentences of OLDI-Seed; every third is followed by a copy in which some words are replaced. Ours is
what tasks of the stage do to shards and buckets, in one process; datasketch is the usual script: n-grams of
``str.split``, ``MinHash.update_batch``, one ``MinHashLSH`` a language, a document is dropped if the index has a similar
one. Both use the same similarity and number of hashes, and so the same bands.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import time
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from compass_ray import records
from compass_ray.ingest.config import MinHash
from compass_ray.ingest.minhash import banding, bucket_hashes
from compass_ray.ingest.near_duplicates import shared_buckets
from compass_ray.ingest.ngrams import ngram_hashes

RESULTS = Path(__file__).parent / "results" / "near_duplicates.json"
CONFIG = MinHash()
CUT = banding(CONFIG.similarity, CONFIG.hashes)
SENTENCES = 6
EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def documents(data: Path, count: int) -> tuple[list[str], list[str], list[tuple[int, int]]]:
    """Texts, their languages, and pairs of an original and its copy."""
    rng = random.Random(0)  # noqa: S311 not for secrets
    said = {}
    for path in sorted((data / "oldi_seed").glob("*.jsonl.gz")):
        with gzip.open(path) as stream:
            said[path.name.split(".")[0]] = [orjson.loads(line)["text"].replace("\n", " ") for line in stream]
    texts, langs, pairs = [], [], []
    for number in range(count):
        lang = rng.choice(list(said))
        text = " ".join(rng.choice(said[lang]) for _ in range(SENTENCES))
        texts.append(text)
        langs.append(lang)
        if number % 3 == 0:
            words = text.split(" ")
            for place in rng.sample(range(len(words)), min(len(words), rng.randrange(1, 9))):
                words[place] = f"x{rng.randrange(10**6)}"
            pairs.append((len(texts) - 1, len(texts)))
            texts.append(" ".join(words))
            langs.append(lang)
    return texts, langs, pairs


def ours(texts: list[str], langs: list[str]) -> set[tuple[int, int]]:
    """Pairs of a document that goes and the one it repeats."""
    buckets, compared = bucket_hashes(texts, langs, CONFIG.lengths, CUT)
    ids = np.zeros((len(texts), 16), dtype=np.uint8)
    ids[:, 8:] = np.arange(len(texts), dtype=">u8")[:, None].view(np.uint8)
    target_langs = np.repeat(compared, CUT.bands)
    shard = np.zeros(len(target_langs), dtype=np.int32)
    table = shared_buckets(
        pa.table({"hash": buckets.ravel(), "doc_id": records.numpy_to_ids(ids[target_langs]), "shard": shard})
    )
    numbers = [
        np.ascontiguousarray(records.ids_to_numpy(table[name])[:, 8:]).view(">u8").ravel().tolist()
        for name in ("doc_id", "first")
    ]
    return set(zip(*numbers, strict=True))


def datasketched(texts: list[str], langs: list[str]) -> set[tuple[int, int]]:
    """The same by the usual script."""
    from datasketch import MinHash as Sketch
    from datasketch import MinHashLSH

    indexes: dict[str, Any] = defaultdict(lambda: MinHashLSH(threshold=CONFIG.similarity, num_perm=CONFIG.hashes))
    found = set()
    for number, (text, lang) in enumerate(zip(texts, langs, strict=True)):
        words = text.lower().split()
        grams = {" ".join(words[at : at + CONFIG.words]).encode() for at in range(len(words) - CONFIG.words + 1)}
        if not grams:
            continue
        sketch = Sketch(num_perm=CONFIG.hashes)
        sketch.update_batch(grams)
        near = indexes[lang].query(sketch)
        if near:
            found.add((number, min(near)))
        else:
            indexes[lang].insert(number, sketch)
    return found


def jaccards(texts: list[str], pairs: list[tuple[int, int]]) -> list[float]:
    hashes, target_langs = ngram_hashes(texts, CONFIG.lengths)
    order = np.argsort(target_langs, kind="stable")
    parts = np.split(hashes[order], np.searchsorted(target_langs[order], np.arange(1, len(texts))))
    sets = [set(part.tolist()) for part in parts]
    return [len(sets[a] & sets[b]) / max(1, len(sets[a] | sets[b])) for a, b in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("COMPASS_DATA", "../shared/data")))
    parser.add_argument("--documents", type=int, default=30_000)
    given = parser.parse_args()
    texts, langs, pairs = documents(given.data, given.documents)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    ours(texts[:100], langs[:100])
    times, found = {}, {}
    for name, work in (("ours", ours), ("datasketch", datasketched)):
        started = time.process_time()
        found[name] = work(texts, langs)
        times[name] = time.process_time() - started
    similarities = np.array(jaccards(texts, pairs))
    hit = np.array([(copy, first) in found["ours"] for first, copy in pairs])
    planted = {frozenset(pair) for pair in pairs}
    others = [pair for pair in found["ours"] if frozenset(pair) not in planted]
    bins = []
    for low, high in pairwise(EDGES):
        inside = (similarities >= low) & (similarities < high)
        expected = float(CUT.probability(similarities[inside]).mean())
        bins.append([low, high, int(inside.sum()), round(float(hit[inside].mean()), 3), round(expected, 3)])
    body = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
        "documents": len(texts),
        "megabytes": round(megabytes, 1),
        "bands": CUT.bands,
        "rows": CUT.rows,
        "cpu_seconds": {name: round(value, 2) for name, value in times.items()},
        "left_out": {name: len({gone for gone, _ in pairs_found}) for name, pairs_found in found.items()},
        "planted": bins,
        "others": len(others),
        "others_below_half": int((np.array(jaccards(texts, others) or [1.0]) < 0.5).sum()),
    }
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    print(f"{len(texts):,} documents, {megabytes:.0f} MB; {CUT.bands} bands of {CUT.rows}")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.1f} s | {megabytes / seconds:.1f} MB/s | {body['left_out'][name]:,} left out |")
    for low, high, count, share, expected in bins:
        print(f"| {low}-{high} | {count:,} | {share:.3f} | {expected:.3f} |")
    print(f"others found: {len(others)}, of them below 0.5: {body['others_below_half']}")


if __name__ == "__main__":
    main()
