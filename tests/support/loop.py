"""The loop of watching, updating and gating: files of usage and a pool, one config for all commands, a champion."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from demo import DEMO, demo_config

from compass_ray import RunConfig, train_adapters
from compass_ray.registry.store import Registry

QUESTION = "Bei ya dhahabu leo sokoni ni shilingi {}?"
ANSWER = "Bei ya dhahabu jana sokoni ilikuwa shilingi {}."
"""What a new client asks over and over, with other numbers, and what the pool holds of it."""
_COLUMNS = {"text": "question", "lang": "lang"}


def write_log(path: Path, questions: Iterable[str]) -> Path:
    """Write usage of Swahili."""
    rows = (json.dumps({"question": question, "lang": "sw"}, ensure_ascii=False) + "\n" for question in questions)
    path.write_text("".join(rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Loop:
    """A place where the loop is gone round.

    Attributes
    ----------
    files : Path
        ``former.jsonl``, the usage that the champion is made for; ``same.jsonl``, other usage of that kind;
        ``moved.jsonl``, what a new client asks; ``gold.jsonl``, what the pool has for it.
    output : Path
        Where commands write.
    """

    files: Path
    output: Path

    @classmethod
    def in_folder(cls, folder: Path) -> Loop:
        """Write the files, without a champion."""
        with gzip.open(DEMO / "usage.tsv.gz", "rt", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["lang"] == "sw"]
        questions = [row["question"] for row in sorted(rows, key=lambda row: (row["topic"], row["question"]))]
        write_log(folder / "former.jsonl", questions[::2])
        write_log(folder / "same.jsonl", questions[1::2])
        write_log(folder / "moved.jsonl", map(QUESTION.format, range(150)))
        gold = (json.dumps({"text": ANSWER.format(number), "lang": "sw"}) + "\n" for number in range(1000, 1060))
        (folder / "gold.jsonl").write_text("".join(gold), encoding="utf-8")
        return cls(folder, folder / "out")

    @property
    def registry(self) -> Registry:
        """The registry in the output."""
        return Registry(str(self.output / "registry"))

    def config(self, usage: Path | str, *sets: str, output: Path | str | None = None) -> RunConfig:
        """Make the config of every command, for usage that is watched: a file, or the name of one of ours."""
        path = usage if isinstance(usage, Path) else self.files / f"{usage}.jsonl"
        former, gold = self.files / "former.jsonl", self.files / "gold.jsonl"
        sections = {
            "sources.gold": {"role": "pool", "path": str(gold), "columns": {"text": "text", "lang": "lang"}},
            "sources.usage": {"role": "usage", "path": str(former), "columns": _COLUMNS},
            "sample.near_duplicates": "off",  # numbers are all that tells questions of the new client apart
            "monitor": {
                "usage": {"log": {"path": str(path), "columns": _COLUMNS}},
                "reference": "champion",
                "min_documents": 20,
                "min_reference": 20,
            },
            "adapt": {
                "base": str(DEMO / "base"),
                "languages": ["sw"],
                "max_length": 64,
                "replay_fraction": 0.3,
                "lora": {"rank": 4, "alpha": 8},
                "training": {"batch_size": 4, "epochs": 2, "learning_rate": 0.005},
                "workers": {"log_steps": 5, "checkpoint_steps": 5},
            },
            "gate": {"min_documents": 5, "min_covered": 0.3},
            "holdout_fraction": 0.4,
        }
        given = (f"{name}={json.dumps(value)}" for name, value in sections.items())
        return demo_config(self.output if output is None else output, *given, *sets)

    def with_champion(self, *sets: str) -> Loop:
        """Train an adapter of Swahili in this process, and promote it."""
        train_adapters(self.config("same", *sets))
        self.registry.promote("sw@candidate")
        return self

    def copied(self, folder: Path) -> Loop:
        """Make a copy of all that was written, for a test that goes on from there."""
        shutil.copytree(self.output, folder / "out")
        return replace(self, output=folder / "out")


def states(loop: Loop) -> dict[str, list[str]]:
    """List the versions of a registry and the aliases of each, as ``registry list`` does."""
    ((base, lang),) = loop.registry.places()
    return {version.lineage.version: sorted(version.aliases) for version in loop.registry.history(base, lang)}
