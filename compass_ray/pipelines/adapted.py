"""What ``adapt`` has written, as a handle on the run's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray import storage
from compass_ray.artifacts import canonical_json, from_parquet
from compass_ray.errors import ArtifactMissing, ConfigError
from compass_ray.registry.scores import HEADINGS, ScoreLine, score_lines

_RECORD = "adapt.json"

SCORE_HEADINGS = HEADINGS
"""Of the cells of :meth:`AdaptedRun.score_lines`."""


@dataclass(frozen=True)
class AdaptedRun:
    """The adapters of one run; everything is read from its folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>``, local or ``s3://``.
    """

    path: str

    @property
    def record(self) -> dict[str, Any]:
        """``adapt.json``: base, registry, versions and scores by language, what failed, what happened to documents."""
        try:
            body: dict[str, Any] = json.loads(storage.read_bytes(storage.join(self.path, _RECORD)))
        except FileNotFoundError as exc:
            raise ArtifactMissing(f"{self.path}: has no {_RECORD}; run `compass-ray adapt` on its config") from exc
        return body

    def exists(self) -> bool:
        """Whether anything has been written: a command that failed early has not come so far."""
        return storage.exists(storage.join(self.path, _RECORD))

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
        """Held-out scores of one language's adapter and its base, schema ``records.SCORE``.

        The column ``measures`` says of what: ``usage`` in the language, the trained ``mixture``, or an ``other``
        language's mixture.
        """
        return self._table(lang, "scores")

    def score_lines(self, lang: str) -> list[ScoreLine]:
        """Turn what :meth:`scores` reads into lines for people."""
        return score_lines(self.scores(lang).to_pylist())

    def curve(self, lang: str) -> pa.Table:
        """Loss by update, schema ``records.CURVE``."""
        return self._table(lang, "curve")

    def _table(self, lang: str, name: str) -> pa.Table:
        return from_parquet(storage.read_bytes(storage.join(self.path, "adapt", lang, f"{name}.parquet")))

    def refuse_other_identity(self, identity: str) -> None:
        """One name, one run.

        Raises
        ------
        ConfigError
            If adapters of another config or other data are there.
        """
        try:
            there = self.record["identity"]
        except ArtifactMissing:
            return
        if there != identity:
            raise ConfigError(
                f"name: {self.path} holds adapters of another config or other data (identity {there}, now {identity}); "
                "give this run another name (--set name=...) or remove its adapt.json"
            )

    def write(self, body: dict[str, Any]) -> None:
        """Write ``adapt.json``, the last of a run's files."""
        put(self, _RECORD, canonical_json(body).encode())


def put(run: AdaptedRun, name: str, data: bytes) -> None:
    """Write one file of a run."""
    storage.write_bytes(storage.join(run.path, name), data)
