"""What ``monitor`` has found, as a handle on its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray import storage
from compass_ray.artifacts import from_parquet
from compass_ray.errors import DRIFT_EXIT_CODE, UNKNOWN_EXIT_CODE, ArtifactMissing

RECORD = "drift.json"
WINDOWS = "windows.parquet"


@dataclass(frozen=True)
class MonitoredRun:
    """The latest answer about a run's usage; it is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>/monitor``, local or ``s3://``.
    """

    path: str

    @property
    def record(self) -> dict[str, Any]:
        """``drift.json``: the verdict on each target language, its windows, and where its reference usage is from."""
        body: dict[str, Any] = json.loads(self._bytes(RECORD))
        return body

    @property
    def verdicts(self) -> dict[str, str]:
        """``drift``, ``stable`` or ``insufficient`` by target language."""
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
    def quarantine(self) -> pa.Table:
        """Rows of new usage that could not be used, and why, schema ``records.QUARANTINE``."""
        return from_parquet(self._bytes("quarantine.parquet"))

    @property
    def windows(self) -> pa.Table:
        """New usage by target language, window and cluster, schema ``records.WINDOW``."""
        return from_parquet(self._bytes(WINDOWS))

    def _bytes(self, name: str) -> bytes:
        try:
            return storage.read_bytes(storage.join(self.path, name))
        except FileNotFoundError as exc:
            raise ArtifactMissing(f"{self.path}: has no {name}; run `compass-ray monitor` on its config") from exc
