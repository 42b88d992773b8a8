"""Selection problems of other topics, target languages and languages than the published figures are of, as vectors.

SIB-200: every pair of topics but the one of ``docs/examples/sib200.yaml``, each asked for by four languages drawn from
those that are no target languages there; usage is the dev rows of the pair, current data the train rows of other
topics, the pool the test rows of all other languages. Newsletters in English, Chinese and French, 2022 after earlier
years, with all or few of the usage documents; the pool is a part of tldr and OLDI, and SIB-200. Vectors are the bundled
encoder's.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sib200_selection import MISSING  # beside this file

from compass_ray.embed.kinds import load_encoder
from compass_ray.vectors import unit_rows

Vectors = NDArray[np.float32]
Vector = NDArray[np.float64]
TARGET_LANGS = ("amh_Ethi", "pol_Latn", "swh_Latn", "tam_Taml")  # of the published figures
ENCODER = load_encoder("bundled")


@dataclass(frozen=True)
class Problem:
    """Vectors of a pool with its languages, and by target language of usage, current data, and unseen usage."""

    group: str
    n_clusters: int
    pool: Vectors
    langs: NDArray[np.int64]
    usage: Mapping[str, Vectors]
    current: Mapping[str, Vectors]
    unseen: Mapping[str, Vectors]
    texts: NDArray[np.int64] | None = None  # equal where pool rows translate each other
    asked: NDArray[np.bool_] | None = None  # pool rows of the topics that usage is about


def encode(texts: Sequence[str]) -> Vectors:
    """Unit vectors as they travel: through float16."""
    parts = [ENCODER.encode(texts[start : start + 512]) for start in range(0, len(texts), 512)]
    return unit_rows(np.concatenate(parts).astype(np.float16))


def sib200(data: Path) -> tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Languages, vectors (language, sentence, d), and split and topic of each sentence."""
    langs = sorted(path.parent.name for path in data.glob("sib200/*/test.tsv"))
    vectors, split, topic = [], [], []
    for lang in langs:
        texts = []
        for part in ("train", "dev", "test"):
            with (data / "sib200" / lang / f"{part}.tsv").open(encoding="utf-8") as stream:
                for row in csv.DictReader(stream, delimiter="\t"):
                    texts.append(row["text"])
                    if lang == langs[0]:
                        split.append(part)
                        topic.append(row["category"])
        vectors.append(encode(texts))
    return langs, np.stack(vectors), np.array(split), np.array(topic)


def sib_problems(sib: tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]) -> Iterator[Problem]:
    """Twenty pairs of topics, with 30 and 100 clusters."""
    langs, x, split, topic = sib
    rng = np.random.default_rng(5)
    place = {lang: index for index, lang in enumerate(langs)}
    test = split == "test"
    for pair in itertools.combinations(sorted(set(topic)), 2):
        if set(pair) == MISSING:
            continue
        target_langs = rng.choice([lang for lang in langs if lang not in TARGET_LANGS], 4, replace=False).tolist()
        mine = np.isin(topic, pair)
        others = [place[lang] for lang in langs if lang not in target_langs]
        for n_clusters in (30, 100):
            yield Problem(
                f"SIB-200, {n_clusters} clusters",
                n_clusters,
                x[others][:, test].reshape(-1, x.shape[2]),
                np.repeat(others, test.sum()),
                {target_lang: x[place[target_lang]][mine & (split == "dev")] for target_lang in target_langs},
                {target_lang: x[place[target_lang]][~mine & (split == "train")] for target_lang in target_langs},
                {target_lang: x[place[target_lang]][mine & (split == "train")] for target_lang in target_langs},
                np.tile(np.arange(test.sum()), len(others)),
                np.tile(mine[test], len(others)),
            )


def news_pool(data: Path, sib: tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]) -> tuple[Vectors, list[str]]:
    """A part of tldr and OLDI, and test rows of SIB-200: vectors and languages."""
    langs, x, split, _ = sib
    texts, names = [], []
    for path in [data / "tldr_pages.jsonl.gz", *sorted((data / "oldi_seed").glob("*.jsonl.gz"))]:
        for line in _lines(path):
            if zlib.crc32(line) % 8 == 0:
                row = json.loads(line)
                texts.append(row.get("prompt") or row["text"])
                names.append(row["lang"] if "prompt" in row else path.name.split(".")[0])
    test = split == "test"
    names += np.repeat(langs, test.sum()).tolist()
    return np.concatenate([encode(texts), x[:, test].reshape(-1, x.shape[2])]), names


def newsletters(data: Path) -> dict[tuple[str, str], Vectors]:
    """Different texts by language and year."""
    texts: dict[tuple[str, str], dict[str, None]] = {}
    for line in _lines(data / "newsletters.jsonl.gz"):
        row = json.loads(line)
        texts.setdefault((row["lang"], row["date"][:4]), {})[row["text"]] = None
    return {key: encode(list(some)) for key, some in texts.items()}


def news_problems(data: Path, sib: tuple[list[str], NDArray[Any], NDArray[Any], NDArray[Any]]) -> Iterator[Problem]:
    """Three languages, two seeds, with 30, 100 and all usage documents."""
    pool, names = news_pool(data, sib)
    codes = np.unique(names, return_inverse=True)[1]
    rows = [json.loads(line) for line in _lines(data / "newsletters.jsonl.gz")]
    for lang, seed in itertools.product(("en", "zh", "fr"), (0, 1)):
        mine = [row for row in rows if row["lang"] == lang]
        asked, before = (
            encode(list(dict.fromkeys(row["text"] for row in mine if row["date"][:4] in years)))
            for years in (("2022",), ("2019", "2020", "2021"))
        )
        order = np.random.default_rng(seed).permutation(len(asked))
        unseen, known = np.split(order, [len(asked) // 3])
        for size, name in ((43, "30"), (143, "100"), (len(known), "all")):  # about a third of them is held out below
            yield Problem(
                f"newsletters, {name} usage documents",
                100,
                pool,
                codes,
                {lang: asked[known[:size]]},
                {lang: before},
                {lang: asked[unseen]},
            )


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as stream:
        yield from stream
