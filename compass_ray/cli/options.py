"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

INTERRUPTED = 130

ConfigPath = Annotated[str, typer.Argument(help="YAML config, local or s3://, or inline JSON", metavar="CONFIG")]
Overrides = Annotated[list[str], typer.Option("--set", help="Override a field: a.b=value", metavar="FIELD=VALUE")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to join")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]


def with_address(overrides: list[str], address: str | None) -> list[str]:
    """Overrides with ``--address`` as one more of them."""
    return overrides if address is None else [*overrides, f"ray.address={address}"]


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that the work done is not lost, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing is half-written; run the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
