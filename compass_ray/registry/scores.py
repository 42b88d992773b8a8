"""Held-out scores for people: a line each for usage, the trained mixture and other languages, always in this order.

What a line is called says what was measured. Where there was nothing to measure, the line says that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compass_ray import records

HELDOUT = "heldout"
"""The key of a lineage's scores that holds rows of schema ``records.SCORE``."""

_CALLED = {
    "usage": ("held-out usage", "no held-out usage"),
    "mixture": ("trained mixture", "no held-out mixture"),
    "other": ("other languages", "no other languages"),
}
_NOTHING = "–"


@dataclass(frozen=True)
class ScoreLine:
    """One line of a table, figures as ``base → adapter``; a dash where nothing was measured.

    Attributes
    ----------
    measured : str
        On what.
    in_language : str
        How many of the documents are in the language that the line is about, ``7 of 101``.
    loss, bits_per_byte : str
    change : str
        Of the bits per byte, in percent.
    perplexity : str
    """

    measured: str
    in_language: str = _NOTHING
    loss: str = _NOTHING
    bits_per_byte: str = _NOTHING
    change: str = _NOTHING
    perplexity: str = _NOTHING

    def cells(self) -> tuple[str, ...]:
        """List all fields in the order of :data:`HEADINGS`."""
        return (self.measured, self.in_language, self.loss, self.bits_per_byte, self.change, self.perplexity)


HEADINGS = ("measured on", "in language", "loss", "bits per byte", "change", "perplexity")


def score_lines(rows: Sequence[Mapping[str, Any]]) -> list[ScoreLine]:
    """Say what an adapter scored, in the order of ``records.MEASURES``.

    Parameters
    ----------
    rows : sequence of mapping
        Of one adapter, schema ``records.SCORE``. The other languages are one line: all their documents together.
    """
    return [_line(measures, [row for row in rows if row["measures"] == measures]) for measures in records.MEASURES]


def _line(measures: str, rows: Sequence[Mapping[str, Any]]) -> ScoreLine:
    found, missing = _CALLED[measures]
    measured = [row for row in rows if row["documents"]]
    if not measured:
        return ScoreLine(missing)
    (loss, perplexity, bits), (base_loss, base_perplexity, base_bits) = (
        _together(measured, name) for name in ("loss", "base_loss")
    )
    inside, documents = (sum(row[name] for row in measured) for name in ("in_language", "documents"))
    return ScoreLine(
        found,
        f"{inside:,} of {documents:,}",
        f"{base_loss:.3f} → {loss:.3f}",
        f"{base_bits:.3f} → {bits:.3f}",
        f"{bits / base_bits - 1:+.1%}",
        f"{base_perplexity:,.1f} → {perplexity:,.1f}",
    )


def _together(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float, float]:
    """Compute loss, perplexity and bits per byte of all rows' documents as one."""
    nats = sum(row[name] * row["tokens"] for row in rows)
    loss = nats / sum(row["tokens"] for row in rows)
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return loss, perplexity, nats / math.log(2) / sum(row["bytes"] for row in rows)
