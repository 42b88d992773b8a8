"""Commands as jobs of a cluster: ``compass-ray submit curate CONFIG``."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from compass_ray import storage
from compass_ray.config import check_elsewhere, is_inline
from compass_ray.errors import ConfigError
from compass_ray.runtime.jobs import Job, JobServer, check_id

__all__ = ["COMMANDS", "Job", "JobServer", "submit"]

COMMANDS = ("curate", "compare", "adapt", "monitor", "update", "gate")
"""Those of ours that take a config and print JSON."""

_MORE = {"monitor": ["--exit-code"]}
"""So that a scheduler learns the same of the command as of ``jobs/monitor.py``."""


def submit(
    job: str,
    config: str,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    submission_id: str | None = None,
    working_dir: str | None = None,
) -> tuple[JobServer, str]:
    """Run a command, or a script of the working dir, as a job of a cluster.

    The cluster's own installation runs; what is uploaded is the config alone, as it is written: ``${VAR}`` is expanded
    by the cluster's environment. Submit again under another id after a failure: finished stages are reused.

    Parameters
    ----------
    job : str
        One of :data:`COMMANDS`, or the path of a ``.py`` file in the working dir.
    config : str
        A local file, an ``s3://`` URL that the driver reads, or inline JSON.
    overrides : sequence of str
        ``a.b=value``, handed on.
    address : str, optional
        ``http://host:port`` of the cluster's dashboard.
    submission_id : str, optional
        Name of the job; Ray makes one up if not given.
    working_dir : str, optional
        Folder to upload, which holds the config and what it refers to by relative paths. By default nothing but the
        config is uploaded for a command, and the current folder for a script.

    Returns
    -------
    server : JobServer
    submission_id : str

    Raises
    ------
    ConfigError
        Before anything is uploaded: if the config of a command is wrong (see :func:`~compass_ray.config.
        check_elsewhere`) or would write into the job's temporary folder, if a file is missing, or the id is used.
    ClusterError
        If there is no server, or it refuses the job.
    """
    is_script = job.endswith(".py")
    if not is_script and job not in COMMANDS:
        raise ConfigError(f"JOB {job}: expected one of {', '.join(COMMANDS)}, or the path of a .py file")
    if submission_id is not None:
        check_id(submission_id)
    in_storage = not is_inline(config) and storage.is_remote(config)
    if not is_script and not in_storage:
        _refuse_what_would_be_lost(check_elsewhere(config, overrides))
    if is_script and working_dir is None:
        working_dir = "."
    folder = None if working_dir is None else Path(working_dir)
    given = config
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"--working-dir {folder}: no such folder")
        job = _below(folder, job, "JOB") if is_script else job
        if not is_inline(config) and not in_storage:
            given = _below(folder, config, "CONFIG")
    with ExitStack() as stack:
        if folder is None and not is_inline(config) and not in_storage:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compass-submit-")))
            given = Path(config).name  # the run's too, if it has no other
            shutil.copy(config, folder / given)
        server = JobServer(address)
        command = (
            ["python", job, given]
            if is_script
            else ["python", "-m", "compass_ray", job, given, "--json", *_MORE.get(job, ())]
        )
        entrypoint = shlex.join([*command, *(part for override in overrides for part in ("--set", override))])
        return server, server.submit(entrypoint, folder, submission_id)


def _below(folder: Path, name: str, what: str) -> str:
    """Make a file's name relative to the folder that is uploaded."""
    path = Path(name).resolve()
    if not path.is_file():
        raise ConfigError(f"{what} {name}: no such file")
    if not path.is_relative_to(folder.resolve()):
        raise ConfigError(f"{what} {name}: is not in {folder}, the folder that is uploaded; give --working-dir")
    return str(path.relative_to(folder.resolve()))


def _refuse_what_would_be_lost(raw: dict[str, Any]) -> None:
    output = raw["output"]
    if not output.startswith(("/", "~", "$", "file:///")) and not storage.is_remote(output):
        raise ConfigError(
            f"output: '{output}' is relative, and a job's folder is deleted after it; give s3:// or an absolute path "
            "that all nodes see"
        )
