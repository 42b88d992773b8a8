"""``compass-ray explain RUN DOC_ID``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.cli.options import Address, AsJson
from compass_ray.cli.report import print_json

if TYPE_CHECKING:
    from compass_ray.pipelines.explain import Explanation

_TEXT_SHOWN = 300


def command(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, local or s3://", metavar="RUN")],
    doc_id: Annotated[str, typer.Argument(help="Document id, as in the column doc_id", metavar="DOC_ID")],
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Say why a document was or was not chosen."""
    from compass_ray.pipelines.explain import explain, open_run

    found = explain(open_run(run), doc_id, address)
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


def _print(found: Explanation) -> None:
    typer.echo(f"document {found.doc_id}")
    typer.echo(f"  {found.text[:_TEXT_SHOWN]}" + ("…" if len(found.text) > _TEXT_SHOWN else ""))
    for row in found.rows:
        where = f"{row['source']}: {row['uri']} row {row['row']}"
        fate = "kept" if row["reject"] is None else f"{row['reject']['reason']}: {row['reject']['message']}"
        typer.echo(f"  {where}, role {row['role']}, language {row['lang']}: {fate}")
    if found.assignment is not None:
        similarity = f"similarity {found.assignment['similarity']:.3f}"
        typer.echo(f"  cluster {found.assignment['cluster']}, {similarity}, {found.assignment['tokens']} tokens")
    for verdict in found.verdicts:
        typer.echo(f"{verdict.owner}: {'selected' if verdict.selected else 'not selected'}: {verdict.reason}")
