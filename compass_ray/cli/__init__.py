"""``compass-ray``: one small module per command. Results go to stdout, progress and errors to stderr."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from compass_ray.cli import (
    adapt,
    cache,
    compare,
    config,
    curate,
    demo,
    doctor,
    explain,
    gate,
    job,
    monitor,
    registry,
    status,
    submit,
    update,
)
from compass_ray.errors import CompassError

app = typer.Typer(
    name="compass-ray",
    help="Decide which multilingual data an LLM should be fine-tuned on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("curate")(curate.command)
app.command("compare")(compare.command)
app.command("explain")(explain.command)
app.command("adapt")(adapt.command)
app.command("monitor")(monitor.command)
app.command("update")(update.command)
app.command("gate")(gate.command)
app.command("status")(status.command)
app.command("demo")(demo.command)
app.command("doctor")(doctor.command)
app.command("submit")(submit.command)
app.add_typer(job.app, name="job")
app.add_typer(cache.app, name="cache")
app.add_typer(config.app, name="config")
app.add_typer(registry.app, name="registry")


def main() -> None:
    """Run the command line, as its entry point. Exit codes are as in the error tree."""
    stderr = Console(stderr=True)
    try:
        app()
    except CompassError as exc:
        stderr.print(f"error: {exc}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(exc.exit_code)
