"""``compass-ray job list|status|logs|stop``: what ``compass-ray submit`` has started."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from compass_ray.cli.options import AsJson
from compass_ray.cli.report import print_json, results_console
from compass_ray.errors import Interrupted

if TYPE_CHECKING:
    from compass_ray.pipelines.jobs import Job, JobServer

app = typer.Typer(help="Look at, follow and stop submitted jobs.", no_args_is_help=True)

JobServerAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="The cluster's dashboard, http://HOST:PORT; else RAY_API_SERVER_ADDRESS, else port 8265 of this machine",
    ),
]
JobId = Annotated[str, typer.Argument(help="Submission id", metavar="ID")]


@app.command("list")
def list_command(address: JobServerAddress = None, as_json: AsJson = False) -> None:
    """List submitted jobs, the latest first."""
    from compass_ray.pipelines.jobs import JobServer

    jobs = JobServer(address).jobs()
    if as_json:
        print_json([asdict(job) for job in jobs])
    else:
        _print(jobs)


@app.command()
def status(job_id: JobId, address: JobServerAddress = None, as_json: AsJson = False) -> None:
    """Show what has become of a job."""
    from compass_ray.pipelines.jobs import JobServer

    job = JobServer(address).job(job_id)
    if as_json:
        print_json(asdict(job))
    else:
        _print([job])
        if job.has_ended and job.driver_exit_code is None:
            typer.echo(job.message)


@app.command()
def logs(
    job_id: JobId,
    follow_logs: Annotated[bool, typer.Option("--follow", help="Go on until it ends, and exit as it does")] = False,
    address: JobServerAddress = None,
) -> None:
    """Print what a job has written."""
    from compass_ray.pipelines.jobs import JobServer

    server = JobServer(address)
    if follow_logs:
        follow(server, job_id)
    _write(server.logs(job_id))


@app.command()
def stop(job_id: JobId, address: JobServerAddress = None) -> None:
    """End a job; what it has finished is kept."""
    from compass_ray.pipelines.jobs import JobServer

    job = JobServer(address).stop(job_id)
    typer.echo(f"{job.submission_id}: {job.status}")


def follow(server: JobServer, job_id: str) -> NoReturn:
    """Print what a job writes until it ends, and exit with its driver's exit code. Ctrl-C leaves the job running."""
    try:
        job = server.follow(job_id, _write)
    except KeyboardInterrupt:
        typer.echo(f"job {job_id} goes on; `compass-ray job stop {job_id}` ends it", err=True)
        raise typer.Exit(Interrupted.exit_code) from None
    typer.echo(f"job {job_id}: {job.status}", err=True)
    raise typer.Exit(job.exit_code)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print(jobs: list[Job]) -> None:
    table = Table()
    for heading in ("id", "status", "exit code", "started", "ended", "command"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "command")
    for job in jobs:
        code = "–" if job.driver_exit_code is None else str(job.driver_exit_code)
        table.add_row(job.submission_id, job.status, code, job.started or "–", job.ended or "–", job.entrypoint)
    results_console(markup=False, highlight=False).print(table)
