"""Tables of the proof: bits per byte, what was trained on, and differences with their intervals."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from proof_data import TARGETS  # beside this file

DRAWS = 10_000
DEFAULT = "default"

Cell = dict[str, Any]


def write_table(cells: Sequence[Cell], path: Path) -> list[str]:
    """Markdown of the finished cells; their figures go to ``path``."""
    langs = [lang for lang in TARGETS if any(cell["target"] == lang for cell in cells)]
    arms = list(dict.fromkeys(cell["arm"] for cell in cells))
    grouped = {
        (lang, arm): found
        for lang in langs
        for arm in arms
        if (found := [cell for cell in cells if (cell["target"], cell["arm"]) == (lang, arm)])
    }
    rows = [_figures(lang, arm, found) for (lang, arm), found in grouped.items()]
    differences = [
        {"target": lang, "less": arm, **difference(grouped[lang, DEFAULT], found)}
        for (lang, arm), found in grouped.items()
        if arm != DEFAULT and (lang, DEFAULT) in grouped
    ]
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    body = {"machine": machine, "cells": len(cells), "arms": rows, "differences": differences}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return _markdown(langs, arms, rows, differences)


def bits_per_byte(costs: NDArray[np.float64], sizes: NDArray[np.float64]) -> Any:
    """Bits of all documents over their bytes; documents are the last axis."""
    return costs.sum(axis=-1) / sizes.sum(axis=-1)


def difference(one: Sequence[Cell], other: Sequence[Cell]) -> dict[str, float]:
    """Bits per byte of one arm less another's: value and 95 % interval over documents, both drawn together."""
    (first, sizes), (second, _) = _means(one), _means(other)
    drawn = np.random.default_rng(0).integers(len(sizes), size=(DRAWS, len(sizes)))
    values = bits_per_byte(first[drawn], sizes[drawn]) - bits_per_byte(second[drawn], sizes[drawn])
    low, high = np.quantile(values, (0.025, 0.975))
    value = bits_per_byte(first, sizes) - bits_per_byte(second, sizes)
    return {"value": round(float(value), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _means(cells: Sequence[Cell]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bits of each document, mean over seeds, and its bytes."""
    return np.mean([cell["bits"] for cell in cells], axis=0), np.array(cells[0]["bytes"], dtype=np.float64)


def _figures(lang: str, arm: str, cells: Sequence[Cell]) -> dict[str, Any]:
    costs, sizes = _means(cells)
    by_seed = {
        cell["seed"]: round(float(bits_per_byte(np.array(cell["bits"]), sizes)), 4)
        for cell in sorted(cells, key=lambda cell: cell["seed"])
    }
    found = {
        "target": lang,
        "arm": arm,
        "bits_per_byte": round(float(bits_per_byte(costs, sizes)), 4),
        "seeds": by_seed,
    }
    if arm == "none":
        return found
    for name in ("documents", "epochs", "own_language", "updates", "tokens"):
        found[name] = round(statistics.mean(cell[name] for cell in cells), 3)
    return found


def _markdown(
    langs: Sequence[str], arms: Sequence[str], rows: Sequence[dict[str, Any]], differences: Sequence[dict[str, Any]]
) -> list[str]:
    names = [TARGETS[lang].name for lang in langs]
    figures = {(row["target"], row["arm"]): row for row in rows}
    intervals = {(row["target"], row["less"]): row for row in differences}
    lines = ["bits per byte (mean of the seeds that are there)\n", *_head(["", *names])]
    lines += [_line(arm, [_value(figures.get((lang, arm))) for lang in langs]) for arm in arms]
    lines += ["\ndistinct documents, epochs, share of the target's language\n", *_head(["", *names])]
    lines += [_line(arm, [_trained(figures.get((lang, arm))) for lang in langs]) for arm in arms if arm != "none"]
    if intervals:
        lines += [f"\nbits per byte of `{DEFAULT}` less those of\n", *_head(["", *names])]
        lines += [
            _line(arm, [_interval(intervals.get((lang, arm))) for lang in langs]) for arm in arms if arm != DEFAULT
        ]
    return lines


def _head(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _line(arm: str, values: Sequence[str]) -> str:
    return f"| `{arm}` | {' | '.join(values)} |"


def _value(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['bits_per_byte']:.3f} ({len(row['seeds'])})"


def _trained(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['documents']:.0f}, {row['epochs']:.2f}, {row['own_language']:.0%}"


def _interval(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
