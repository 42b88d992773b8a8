"""The demo corpus: where it lies, a config that curates it, and its current data."""

from __future__ import annotations

import json
from pathlib import Path

from compass_ray.config import RunConfig, load_config

DEMO = Path(__file__).parents[2] / "compass_ray" / "demo"


def demo_config(output: Path | str, *overrides: str) -> RunConfig:
    """The demo's config in eight shards, with the encoder whose workers start without torch."""
    from compass_ray.cli.demo import load_demo

    sets = [f"output={output}", "ingest.shard_bytes=65536", "embed.model=hashing", *overrides]
    return load_config(load_demo(str(DEMO)), sets)


def current_texts() -> dict[str, list[str]]:
    """The demo's current data by language."""
    found: dict[str, list[str]] = {}
    for line in (DEMO / "current.jsonl").read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("text"), str) and row.get("lang"):
            found.setdefault(row["lang"], []).append(row["text"])
    return found
