"""What ``adapt`` has written, as a handle on the run's folder."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from compass_ray.pipelines.run_folder import RunFolder
from compass_ray.registry.scores import HEADINGS, ScoreLine, score_lines

SCORE_HEADINGS = HEADINGS
"""Of the cells of :meth:`AdaptedRun.score_lines`."""


@dataclass(frozen=True)
class AdaptedRun(RunFolder):
    """The adapters of one run; everything is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>``, local or ``s3://``.
    """

    RECORD = "adapt.json"
    COMMAND = "adapt"
    HOLDS = "adapters"

    @property
    def languages(self) -> list[str]:
        """Languages that have an adapter."""
        return sorted(self.record["languages"])

    @property
    def failed(self) -> dict[str, str]:
        """Languages that have none, and why."""
        failed: dict[str, str] = self.record["failed"]
        return failed

    def scores(self, lang: str) -> pa.Table:
        """Read held-out scores of one language's adapter and its base, schema ``records.SCORE``.

        The column ``measures`` says of what: ``usage`` in the language, the trained ``mixture``, or an ``other``
        language's mixture.
        """
        return self._table(lang, "scores")

    def score_lines(self, lang: str) -> list[ScoreLine]:
        """Turn what :meth:`scores` reads into lines for people."""
        return score_lines(self.scores(lang).to_pylist())

    def curve(self, lang: str) -> pa.Table:
        """Read the loss by update, schema ``records.CURVE``."""
        return self._table(lang, "curve")

    def _table(self, lang: str, name: str) -> pa.Table:
        return self.read_table(f"adapt/{lang}/{name}.parquet")
