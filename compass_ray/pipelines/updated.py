"""What ``update`` has done, as a handle on its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray.pipelines.run_folder import RunFolder
from compass_ray.registry.scores import ScoreLine, score_lines


@dataclass(frozen=True)
class UpdatedRun(RunFolder):
    """The latest update of a run's adapters; everything is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>/update``, local or ``s3://``.
    """

    RECORD = "update.json"
    COMMAND = "update"
    HOLDS = "an update"

    @property
    def languages(self) -> dict[str, dict[str, Any]]:
        """What came out by language that was updated: ``version``, ``champion``, ``selection``, ``scores`` and more."""
        found: dict[str, dict[str, Any]] = self.record["languages"]
        return found

    @property
    def unchanged(self) -> dict[str, str]:
        """Languages with usage that were not updated, and why."""
        unchanged: dict[str, str] = self.record["unchanged"]
        return unchanged

    @property
    def failed(self) -> dict[str, str]:
        """Languages whose update failed, and why; their champions are as they were."""
        failed: dict[str, str] = self.record["failed"]
        return failed

    def curve(self, lang: str) -> pa.Table:
        """Read the loss and its parts by update of the weights, schema ``records.UPDATE_CURVE``."""
        return self.read_table(f"{lang}/curve.parquet")

    def scores(self, lang: str) -> pa.Table:
        """Read held-out scores of the new version and its base, schema ``records.SCORE``."""
        return self.read_table(f"{lang}/scores.parquet")

    def score_lines(self, lang: str) -> list[ScoreLine]:
        """Turn what :meth:`scores` reads into lines for people."""
        return score_lines(self.scores(lang).to_pylist())
