"""``compass-ray explain RUN``: a document by its id, its text, or where it is in a source."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compass_ray.cli.options import AsJson
from compass_ray.cli.report import print_json
from compass_ray.errors import ConfigError
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.explain import Explanation, SameText

_TEXT_SHOWN = 300
_ROWS_SHOWN = 10
_ROLES = {"pool": "pool", "current": "current data", "usage": "usage"}

Text = Annotated[
    str | None,
    typer.Option(help="What is embedded of it, or what stands in the source; @FILE and - read a file and stdin"),
]
Row = Annotated[
    int | None,
    typer.Option(help="As tables show it: the byte offset of the line in JSON lines, the number from 0 elsewhere"),
]
Line = Annotated[int | None, typer.Option(help="Instead of --row in JSON lines: among lines not blank, from 1")]
Uri = Annotated[str | None, typer.Option(help="Its file as tables show it, where the source has several")]


def command(
    run: Annotated[str, typer.Argument(help="Folder of a finished run, local or s3://", metavar="RUN")],
    doc_id: Annotated[str | None, typer.Argument(help="As in the column doc_id", metavar="DOC_ID")] = None,
    text: Text = None,
    source: Annotated[str | None, typer.Option(help="Its source as the config names it")] = None,
    row: Row = None,
    line: Line = None,
    uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Say why a document was or was not chosen. Name it by DOC_ID, by --text, or by --source and --row or --line."""
    in_source = row is not None or line is not None
    if sum(way is not None for way in (doc_id, text, row, line)) != 1:
        raise ConfigError("name the document in one way: DOC_ID, --text TEXT, --row N or --line N")
    if in_source != (source is not None) or (uri is not None and not in_source):
        raise ConfigError("--row N and --line N need --source NAME, and --uri FILE if several files have such a row")
    from compass_ray.pipelines import explain

    opened = explain.open_run(run)
    if text is not None:
        found = explain.explain_text(opened, _read(text))
    elif doc_id is not None:
        found = explain.SameText([explain.explain(opened, doc_id)], 0)
    elif line is not None:
        found = explain.SameText([explain.explain_line(opened, str(source), line, uri)], 0)
    else:
        found = explain.SameText([explain.explain_row(opened, str(source), int(row or 0), uri)], 0)
    print_json(_as_json(found)) if as_json else _print(found)


def _read(text: str) -> str:
    """Take the text itself, or read what ``@FILE`` or ``-`` stands for."""
    if text != "-" and not text.startswith("@"):
        return text
    try:
        data = sys.stdin.buffer.read() if text == "-" else Path(text[1:]).read_bytes()
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"--text {text}: {exc}; expected UTF-8 text") from exc


def _as_json(found: SameText) -> dict[str, Any]:
    """Put documents of the same text into plain JSON.

    It has the first document, the others, and how many more there are.
    """
    first, *others = (asdict(document) for document in found.documents)
    return {**first, "others": others, "more": found.more}


def _print(found: SameText) -> None:
    more = f"and {found.more:,} more with this text" if found.more else None
    if len(found.documents) > 1:
        typer.echo(f"{len(found.documents) + found.more:,} documents have this text:")
        for document in found.documents:
            typer.echo(f"  {document.doc_id}  {_kind(document)}")
        if more:
            typer.echo(f"  {more}")
    for document in found.documents:
        if len(found.documents) > 1:
            typer.echo()
        _print_document(document)
    if more and len(found.documents) == 1:
        typer.echo(more)


def _kind(found: Explanation) -> str:
    """Say in one line what a document is and where it is from."""
    row = found.rows[0]
    kind = _ROLES[row["role"]] + (f" of {_language(row['target_lang'])}" if row["target_lang"] else "")
    lang = f", in {_language(row['lang'])}" if row["lang"] and row["lang"] != row["target_lang"] else ""
    rows = f" and {len(found.rows) - 1:,} more rows" if len(found.rows) > 1 else ""
    return f"{kind}{lang}: {_place(row)}{rows}"


def _place(row: dict[str, Any]) -> str:
    """Name a row as ``--source``, ``--uri`` and ``--row`` do."""
    return f"{row['source']}: {row['uri']}" + ("" if row["row"] is None else f" row {row['row']}")


def _language(tag: str) -> str:
    return f"{language_name(tag)} ({tag})"


def _print_document(found: Explanation) -> None:
    typer.echo(f"document {found.doc_id}")
    typer.echo(f"  {found.text[:_TEXT_SHOWN]}" + ("…" if len(found.text) > _TEXT_SHOWN else ""))
    for row in found.rows[:_ROWS_SHOWN]:
        lang = f", {_language(row['lang'])}" if row["lang"] else ""
        fate = "kept" if row["reject"] is None else f"{row['reject']['reason']}: {row['reject']['message']}"
        typer.echo(f"  {_place(row)}, {_ROLES[row['role']]}{lang}: {fate}")
    if len(found.rows) > _ROWS_SHOWN:
        typer.echo(f"  and {len(found.rows) - _ROWS_SHOWN:,} more rows")
    if found.assignment is not None:
        cosine = f"cosine {found.assignment['similarity']:.3f} to its centre"
        typer.echo(f"  cluster {found.assignment['cluster']}, {cosine}, {found.assignment['tokens']} tokens")
    elif any(row["reject"] is None for row in found.rows):
        typer.echo("  never a candidate: its vector is not finite")
    if found.assignment is not None and not found.verdicts:
        typer.echo("  never a candidate: documents are drawn from the pool alone")
    for verdict in found.verdicts:
        typer.echo(f"{_language(verdict.target_lang)}: {'' if verdict.selected else 'not '}selected: {verdict.reason}")
