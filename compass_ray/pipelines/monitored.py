"""What ``monitor`` has found, as a handle on its folder."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from compass_ray.errors import DRIFT_EXIT_CODE, UNKNOWN_EXIT_CODE
from compass_ray.pipelines.run_folder import RunFolder

WINDOWS = "windows.parquet"


@dataclass(frozen=True)
class MonitoredRun(RunFolder):
    """The latest answer about a run's usage; it is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>/monitor``, local or ``s3://``.
    """

    RECORD = "drift.json"
    COMMAND = "monitor"
    HOLDS = "an answer"

    @property
    def verdicts(self) -> dict[str, str]:
        """``drift``, ``stable``, ``insufficient`` or ``cooldown`` by target language."""
        return {target_lang: body["verdict"] for target_lang, body in self.record["target_langs"].items()}

    @property
    def drifted(self) -> list[str]:
        """Target languages whose usage has drifted."""
        return [target_lang for target_lang, verdict in self.verdicts.items() if verdict == "drift"]

    @property
    def unknown(self) -> list[str]:
        """Languages with new usage, of whose reference usage nothing is known: none of it can be judged."""
        target_langs = self.record["target_langs"]
        return [
            target_lang for target_lang, body in target_langs.items() if body["reference"] is None and body["windows"]
        ]

    @property
    def exit_code(self) -> int:
        """What a scheduler is told: that usage has drifted, else that some cannot be judged, else 0."""
        if self.drifted:
            return DRIFT_EXIT_CODE
        return UNKNOWN_EXIT_CODE if self.unknown else 0

    @property
    def windows(self) -> pa.Table:
        """New usage by target language, window and cluster, schema ``records.WINDOW``."""
        return self.read_table(WINDOWS)
