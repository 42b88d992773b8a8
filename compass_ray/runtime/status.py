"""What a run is doing, written for other terminals: ``<output>/runs/<name>/status.json``.

Monitoring beside a run has its own, in ``monitor/`` there.

The file is replaced as a whole, at each change of stage and once in some seconds, so that a reader on another machine
also sees whether the driver is alive: a driver that was killed leaves a file that says ``running`` and grows old.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from compass_ray import storage
from compass_ray.errors import ArtifactMissing
from compass_ray.runtime.stage_record import StageRecord

SILENT_S = 60.0
"""A driver that has not written for so long has died, or cannot reach its storage."""

State = Literal["running", "finished", "failed", "interrupted"]


@dataclass
class Current:
    """The stage at work."""

    stage: str
    artifact: str
    done: int
    total: int
    started: str


@dataclass
class Status:
    """One reading of a run.

    Attributes
    ----------
    state : str
        ``running``, ``finished``, ``failed`` or ``interrupted``, as last written.
    stages : list of dict
        Finished stages, as in ``run.json``.
    current : Current or None
    error : str or None
        Why it failed.
    """

    command: str
    state: State = "running"
    started: str = ""
    updated: str = ""
    host: str = ""
    pid: int = 0
    stages: list[dict[str, Any]] = field(default_factory=list)
    current: Current | None = None
    error: str | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since the driver last wrote."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds()

    @property
    def seems_dead(self) -> bool:
        """Whether it says that it runs, and has not been heard of for long."""
        return self.state == "running" and self.silent_s > SILENT_S

    @property
    def artifacts(self) -> set[str]:
        """Names of the cache folders that it has used, and is writing."""
        used = {str(stage["artifact"]) for stage in self.stages}
        return used | ({self.current.artifact} if self.current else set())


class StatusFile:
    """The writer, one for each run in progress. A run that is refused before its first stage leaves no trace."""

    def __init__(self, run: str, command: str) -> None:
        self._url = _url(run)
        self._status = Status(command, started=_now(), host=socket.gethostname(), pid=os.getpid())
        self._begun = False

    def begin(self, stage: str, artifact: str, done: int, total: int) -> None:
        """Note that a stage has work to do."""
        self._status.current = Current(stage, artifact, done, total, _now())
        self._begun = True
        self.write()

    def advance(self) -> None:
        """Count one more key of the stage as done. It is shown at the next beat."""
        if self._status.current is not None:
            self._status.current.done += 1

    def finish_stage(self, stages: Sequence[StageRecord]) -> None:
        """Note the stages that are done."""
        self._status.stages, self._status.current = [asdict(stage) for stage in stages], None
        self._begun = True
        self.write()

    def end(self, state: State, error: str | None = None) -> None:
        """Write the last word."""
        self._status.state, self._status.error = state, error
        self.write()

    def write(self) -> None:
        """Replace the file, if there is something to say."""
        if not self._begun:
            return
        self._status.updated = _now()
        storage.write_bytes(self._url, json.dumps(asdict(self._status), indent=1).encode())


def read_status(run: str) -> Status:
    """Read what the driver of a run has last written.

    Parameters
    ----------
    run : str
        The run's folder, ``<output>/runs/<name>``, or ``monitor`` in it.

    Raises
    ------
    ArtifactMissing
        If no run has ever started there.
    """
    try:
        body = json.loads(storage.read_bytes(_url(run)))
    except FileNotFoundError as exc:
        raise ArtifactMissing(
            f"{run}: no run has started there; expected <output>/runs/<name> of a config, or monitor in it"
        ) from exc
    body["current"] = Current(**body["current"]) if body["current"] else None
    return Status(**body)


def _url(run: str) -> str:
    return storage.join(run, "status.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
