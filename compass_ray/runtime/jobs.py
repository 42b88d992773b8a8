"""Jobs on a cluster, through the HTTP server of Ray's dashboard: submit, follow, look at, stop.

Cost: one request each. Submitting uploads the working dir unless the cluster has the same bytes already.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compass_ray.errors import ClusterError, ConfigError, Interrupted, ResourcesMissing, WorkerLost
from compass_ray.runtime.head import listens

_LOCAL = "http://127.0.0.1:8265"
_PORTS = {"http": 80, "https": 443}
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STOP_S = 30
_POLL_S = 0.5


@dataclass(frozen=True)
class Job:
    """A submitted job as the cluster describes it.

    Attributes
    ----------
    status : str
        ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``.
    driver_exit_code : int or None
        None while the driver runs, and if it never ran or was stopped.
    message : str
        What the cluster says of the status.
    """

    submission_id: str
    status: str
    driver_exit_code: int | None
    entrypoint: str
    started: str | None
    ended: str | None
    message: str

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def exit_code(self) -> int:
        """What a command that has waited for the job exits with: the driver's own code, 130 if it was stopped.

        Raises
        ------
        WorkerLost
            If the driver was lost, or could not be started.
        """
        if self.driver_exit_code is not None:
            return self.driver_exit_code if self.driver_exit_code >= 0 else 128 - self.driver_exit_code  # as a shell
        if self.status == "STOPPED":
            return Interrupted.exit_code
        raise WorkerLost(
            f"job {self.submission_id}: {self.status}, and its driver left no exit code ({self.message}); "
            "submit it again under another id: what is finished is reused"
        )


class JobServer:
    """The job server of one cluster.

    Parameters
    ----------
    address : str, optional
        ``http://host:port`` of the dashboard; else ``RAY_API_SERVER_ADDRESS``, else this machine's port 8265.

    Raises
    ------
    ConfigError
        If the address is not one.
    ResourcesMissing
        If no server answers there, or it asks for a token that we do not have.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or _LOCAL).rstrip("/")
        host, port = _host_and_port(self.address)
        if not listens(host, port):
            raise ResourcesMissing(
                f"{self.address}: no job server answers there; give --address http://HOST:8265, the dashboard of a "
                "running cluster (`ray start --head` prints it; on Kubernetes forward the port of the head's service)"
            )
        from ray.job_submission import JobSubmissionClient

        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.WARNING)  # its client narrates every upload
        # The client lets the environment win over its argument, and RAY_ADDRESS names another port of the cluster.
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address
        with self._errors():
            self._client = JobSubmissionClient(self.address)

    def submit(self, entrypoint: str, working_dir: Path | None, submission_id: str | None) -> str:
        """Start a job; its submission id.

        Parameters
        ----------
        entrypoint : str
            A shell command, run in a copy of the working dir.
        working_dir : Path, optional
            A local folder to upload, less what its ``.gitignore`` and ``.rayignore`` name.
        submission_id : str, optional
            A name for the job; a cluster runs one job of a name.

        Raises
        ------
        ConfigError
            If there is a job of that name, or the folder is too large.
        """
        try:
            with self._errors():
                return str(
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        runtime_env={"working_dir": str(working_dir)} if working_dir else {},
                        submission_id=submission_id,
                    )
                )
        except ValueError as exc:  # Ray's limit on the size of an upload
            raise ConfigError(
                f"{working_dir}: cannot be uploaded ({exc}); name in .rayignore what the job does not need"
            ) from exc
        except ClusterError as exc:
            if submission_id is None or "already exists" not in str(exc):
                raise
            raise ConfigError(_used(self.job(submission_id))) from exc

    def job(self, submission_id: str) -> Job:
        """Ask what has become of a job.

        Raises
        ------
        ConfigError
            If there is none of this id.
        """
        check_id(submission_id)
        try:
            with self._errors():
                return _job(self._client.get_job_info(submission_id))
        except ClusterError as exc:
            if "status code 404" not in str(exc):
                raise
            raise ConfigError(
                f"{submission_id}: no such job at {self.address}; `compass-ray job list` names those there are"
            ) from exc

    def jobs(self) -> list[Job]:
        """List all submitted jobs that the cluster remembers, the latest first."""
        with self._errors():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id is not None]
        return sorted(found, key=lambda job: job.started or "", reverse=True)

    def logs(self, submission_id: str) -> str:
        """Read what the driver has written so far. Stdout and stderr are as they came."""
        self.job(submission_id)
        with self._errors():
            return str(self._client.get_job_logs(submission_id))

    def follow(self, submission_id: str, write: Callable[[str], object]) -> Job:
        """Hand over what the driver writes as it comes; the job once it has ended."""
        self.job(submission_id)

        async def tail() -> None:
            async for lines in self._client.tail_job_logs(submission_id):
                write(lines)

        with self._errors():
            asyncio.run(tail())
        return self._wait(submission_id, float("inf"))

    def stop(self, submission_id: str) -> Job:
        """End a job, if it has not ended: SIGTERM to its driver, SIGKILL some seconds later.

        Raises
        ------
        ClusterError
            If it has not ended half a minute later.
        """
        if (job := self.job(submission_id)).has_ended:
            return job
        with self._errors():
            self._client.stop_job(submission_id)
        job = self._wait(submission_id, _STOP_S)
        if not job.has_ended:
            raise ClusterError(f"job {submission_id}: still {job.status} {_STOP_S} s after it was told to stop")
        return job

    def _wait(self, submission_id: str, patience_s: float) -> Job:
        deadline = time.monotonic() + patience_s
        while not (job := self.job(submission_id)).has_ended and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return job

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of Ray's client into ours, at this border."""
        import aiohttp
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as exc:
            reason = str(exc).partition("\n")[0].partition(". ")[0]
            raise ResourcesMissing(
                f"{self.address}: {reason}; set RAY_AUTH_MODE=token and put the cluster's token into "
                "~/.ray/auth_token (chmod 600), or name its file in RAY_AUTH_TOKEN_PATH"
            ) from exc
        except (OSError, aiohttp.ClientError) as exc:  # those of requests are OSErrors
            raise ResourcesMissing(
                f"{self.address}: the connection to the job server failed ({type(exc).__name__}: {exc}); submitted "
                "jobs go on by themselves: look at them with `compass-ray job list`"
            ) from exc
        except RuntimeError as exc:  # the answers of the server
            raise ClusterError(f"{self.address}: {exc}") from exc


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    try:
        port = parts.port or _PORTS[parts.scheme]
    except (KeyError, ValueError):
        port = 0
    if not port or not parts.hostname or parts.username is not None:
        shown = address.rpartition("@")[2]  # never a password
        raise ConfigError(
            f"--address {shown}: expected the dashboard's address, http://HOST:PORT or https://HOST, without "
            "credentials"
        )
    return parts.hostname, port


def check_id(submission_id: str) -> None:
    """Refuse an id that cannot stand in an address."""
    if not _ID.fullmatch(submission_id):
        raise ConfigError(f"submission id '{submission_id}': expected letters, digits, '.', '_' and '-', at most 100")


def _used(job: Job) -> str:
    if not job.has_ended:
        return (
            f"--submission-id {job.submission_id}: this job is {job.status} already; follow it with "
            f"`compass-ray job logs --follow {job.submission_id}`"
        )
    code = "" if job.driver_exit_code is None else f" with exit code {job.driver_exit_code}"
    if job.status == "SUCCEEDED":
        return f"--submission-id {job.submission_id}: this job has SUCCEEDED already; another run needs another id"
    return (
        f"--submission-id {job.submission_id}: this job has {job.status}{code}, and an id is used once; "
        "submit again under another id: what is finished is reused"
    )


def _job(details: Any) -> Job:
    return Job(
        submission_id=details.submission_id or "",
        status=str(details.status.value),
        driver_exit_code=details.driver_exit_code,
        entrypoint=details.entrypoint,
        started=_time(details.start_time),
        ended=_time(details.end_time),
        message=details.message or "",
    )


def _time(milliseconds: int | None) -> str | None:
    if not milliseconds:
        return None
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
