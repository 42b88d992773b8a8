"""What ``gate`` has found, as a handle on its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray.pipelines.run_folder import RunFolder


@dataclass(frozen=True)
class GatedRun(RunFolder):
    """The latest comparison of candidates with their champions; it is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>/gate``, local or ``s3://``.
    """

    RECORD = "gate.json"
    COMMAND = "gate"
    HOLDS = "a comparison"

    @property
    def outcomes(self) -> dict[str, str]:
        """``pass``, ``fail`` or ``undecided`` by language that has a candidate and a champion."""
        return {lang: body["outcome"] for lang, body in self.record["languages"].items()}

    @property
    def promoted(self) -> list[str]:
        """Languages whose candidate has become champion."""
        return [lang for lang, body in self.record["languages"].items() if body["promoted"]]

    @property
    def not_compared(self) -> dict[str, str]:
        """Languages that were not compared, and why."""
        found: dict[str, str] = self.record["not_compared"]
        return found

    def verdict(self, lang: str) -> dict[str, Any]:
        """Read what was found of one language, line by line."""
        found: dict[str, Any] = self.record["languages"][lang]
        return found

    def losses(self, lang: str) -> pa.Table:
        """Read the losses of every document under both adapters, schema ``records.LOSS``."""
        return self.read_table(f"{lang}/losses.parquet")
