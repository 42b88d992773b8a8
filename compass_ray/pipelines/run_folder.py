"""A run's folder: one record, which is written last, and files beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from compass_ray import storage
from compass_ray.artifacts import canonical_json, from_parquet, to_parquet
from compass_ray.errors import ArtifactMissing, ConfigError


@dataclass(frozen=True)
class RunFolder:
    """What one command writes for one run; all is read from the folder when asked for.

    Attributes
    ----------
    path : str
        Local or ``s3://``.
    """

    path: str

    RECORD: ClassVar[str]
    """The file that is written last, and without which the run has not finished."""

    COMMAND: ClassVar[str]
    HOLDS: ClassVar[str]
    """What lies in the folder, for messages."""

    @property
    def record(self) -> dict[str, Any]:
        """What the command has written last."""
        return self.read_json(self.RECORD)

    @property
    def quarantine(self) -> pa.Table:
        """Rows that could not be used, and why, schema ``records.QUARANTINE``."""
        return self.read_table("quarantine.parquet")

    def exists(self) -> bool:
        """Tell whether the record is there: a command that failed early has not come so far."""
        return storage.exists(storage.join(self.path, self.RECORD))

    def read_bytes(self, name: str) -> bytes:
        """Read a file.

        Raises
        ------
        ArtifactMissing
            If it is not there.
        """
        try:
            return storage.read_bytes(storage.join(self.path, name))
        except FileNotFoundError as exc:
            raise ArtifactMissing(
                f"{self.path}: has no {name}, so this run has not finished; run `compass-ray {self.COMMAND}` on its "
                "config"
            ) from exc

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON object; raises as :meth:`read_bytes`."""
        body: dict[str, Any] = json.loads(self.read_bytes(name))
        return body

    def read_table(self, name: str) -> pa.Table:
        """Read a Parquet file; raises as :meth:`read_bytes`."""
        return from_parquet(self.read_bytes(name))

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        storage.write_bytes(storage.join(self.path, name), data)

    def write_json(self, name: str, body: dict[str, Any]) -> None:
        """Write a JSON object, keys in order."""
        self.write_bytes(name, canonical_json(body).encode())

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""
        self.write_bytes(name, to_parquet(table))

    def refuse_other_identity(self, identity: str) -> None:
        """Hold to one name, one run.

        Raises
        ------
        ConfigError
            If the folder holds what was made from another config or other data.
        """
        try:
            there = self.record["identity"]
        except ArtifactMissing:
            return
        if there != identity:
            raise ConfigError(
                f"name: {self.path} holds {self.HOLDS} of another config or other data (identity {there}, now "
                f"{identity}); give this run another name (--set name=...) or remove its {self.RECORD}"
            )
