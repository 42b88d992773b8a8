"""``compass-ray submit JOB CONFIG``."""

from __future__ import annotations

from typing import Annotated

import typer

from compass_ray.cli.job import JobServerAddress, follow
from compass_ray.cli.options import ConfigPath, Overrides


def command(
    job: Annotated[
        str,
        typer.Argument(
            help="curate, compare, adapt, monitor, update, gate, or a .py of the working dir", metavar="JOB"
        ),
    ],
    config: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: JobServerAddress = None,
    submission_id: Annotated[str | None, typer.Option(help="Name of the job; each is used once")] = None,
    follow_logs: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Print its output and exit as it does; or print its id")
    ] = True,
    working_dir: Annotated[
        str | None, typer.Option(help="Folder to upload; by default CONFIG alone, for a script the current folder")
    ] = None,
) -> None:
    """Run a command on CONFIG as a job of a cluster, by the cluster's own installation."""
    from compass_ray.pipelines.jobs import submit

    server, job_id = submit(
        job, config, overrides, address=address, submission_id=submission_id, working_dir=working_dir
    )
    if not follow_logs:
        typer.echo(job_id)
        return
    typer.echo(f"job {job_id} at {server.address}", err=True)
    follow(server, job_id)
