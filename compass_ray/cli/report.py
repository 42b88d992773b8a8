"""A finished run for people: what was rejected, where the gaps are, what the selection achieved."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compass_ray.languages import language_mix, language_name

if TYPE_CHECKING:
    from compass_ray.config import RunConfig
    from compass_ray.pipelines.run import CurationRun

_GAPS_SHOWN = 6
_PIPE_WIDTH = 120


def results_console(*, pipe_width: int = _PIPE_WIDTH, **options: Any) -> Console:
    """Make the console where results for people go: stdout.

    It is as wide as the terminal, or of a fixed width where there is none.
    """
    return Console(width=None if sys.stdout.isatty() else pipe_width, **options)


def run_as_json(run: CurationRun) -> dict[str, Any]:
    """Put all that :func:`print_run` shows into plain JSON."""
    return {
        "path": run.path,
        "certificate": run.certificate,
        "selected": run.record["selected"],
        "quarantined": run.quarantine.num_rows,
        "ingested": run.ingested,
        "gaps": run.gaps.to_pylist(),
        "unmet": run.unmet.to_pylist(),
        "stages": [{"stage": s.stage, "rows": s.rows, "seconds": s.seconds, "reused": s.reused} for s in run.stages],
    }


def print_json(body: Any) -> None:
    """Write one JSON object to stdout."""
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")


def print_run(run: CurationRun) -> None:
    """Print gap tables, certificate and path."""
    certificate = run.certificate
    console = results_console()
    print_rows(run, console)
    gaps = run.gaps.to_pylist()
    for target_lang in certificate:
        console.print(_gap_table(target_lang, [gap for gap in gaps if gap["target_lang"] == target_lang]))
    console.print(_certificate_table(certificate))
    for target_lang, body in certificate.items():
        console.print(f"{target_lang}: selected {language_mix(body['languages'])}", markup=False)
        for note in body["notes"]:
            console.print(f"{target_lang}: {note}", markup=False)
    console.print(f"run: {run.path}", markup=False, soft_wrap=True)


def print_rows(run: CurationRun, console: Console) -> None:
    """Print what became of every row that was read, by source. That is a document, or the reason why not."""
    ingested = run.ingested
    table = Table(title=f"Rows read: {sum(rows for *_, rows in ingested['rows']):,}", title_justify="left")
    for heading in ("source", "outcome"):
        table.add_column(heading)
    table.add_column("rows", justify="right")
    for source, outcome, rows in sorted(ingested["rows"], key=lambda row: (row[0], row[1] != "document", -row[2])):
        about = "about " if [source, outcome] in ingested.get("estimated", []) else ""
        table.add_row(escape(source), outcome, f"{about}{rows:,}")
    console.print(table)
    for source, told in ingested.get("dialects", {}).items():
        for layout, of in told.items():
            console.print(dialect_line(source, layout, of["files"], of["first"]), markup=False)
    for source, rows in ingested["mojibake"].items():
        console.print(f"{source}: {rows:,} documents look like mojibake and were left as they are", markup=False)
    for source, notes in ingested.get("notes", {}).items():
        for note, rows in notes.items():
            console.print(f"{source}: {rows:,} documents: {note}", markup=False)
    for file, rows in ingested.get("contaminated", {}).items():
        console.print(f"{file}: {rows:,} pool rows share a passage with this evaluation file", markup=False)
    for name, counts in ingested.get("evaluations", {}).items():
        if counts["too_short"]:
            console.print(
                f"{name}: {counts['too_short']:,} of {counts['texts']:,} evaluation texts are too short to be compared",
                markup=False,
            )
        if counts.get("blank"):  # runs of older versions did not count them
            console.print(f"{name}: {counts['blank']:,} evaluation rows are blank or null", markup=False)
    for source, left_out in ingested.get("left_out", {}).items():
        files = sum(one["files"] for one in left_out)
        reasons = ", ".join(f"{one['files']:,} {one['reason']}" for one in left_out)
        plural = "" if files == 1 else "s"
        console.print(f"{source}: {files:,} file{plural} not read ({reasons}): ingest.json", markup=False)


def dialect_line(source: str, layout: str, files: int, first: str) -> str:
    """Say how some delimited files of a source are read."""
    which = first if files == 1 else f"{files:,} files, {first} first,"
    return f"{source}: {which} read with {layout}"


def print_rejected_run(config: RunConfig) -> None:
    """Print on stderr what became of the rows of a rejected run. Too many bad ones have ended it."""
    from compass_ray.pipelines.run import run_of

    print_rows(run_of(config), Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH))


def _gap_table(target_lang: str, gaps: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Largest deficits of {language_name(target_lang)} ({target_lang})", title_justify="left")
    table.add_column("cluster", max_width=34, overflow="ellipsis", no_wrap=True)
    for heading in ("usage", "95 % interval", "current", "deficit", "asked", "capacity", "drawn", "unmet"):
        table.add_column(heading, justify="right", no_wrap=True)
    for gap in gaps[:_GAPS_SHOWN]:
        table.add_row(
            escape(gap["label"]),
            f"{gap['p_usage']:.1%}",
            f"{gap['p_usage_low']:.1%} – {gap['p_usage_high']:.1%}",
            "–" if gap["p_current"] is None else f"{gap['p_current']:.1%}",
            f"{gap['deficit']:.1%}",
            _count(gap["asked"]),
            f"{gap['capacity']:,}",
            f"{gap['drawn']:,}",
            _count(gap["unmet"]),
        )
    return table


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _certificate_table(certificate: dict[str, Any]) -> Table:
    title = "Certificate: distance of training data from held-out usage (JSD in bits, 0 is equal)"
    table = Table(title=title, title_justify="left")
    table.add_column("language")
    for heading in ("before", "after", "same budget at random", "selected", "held-out documents"):
        table.add_column(heading, justify="right")
    for target_lang, body in certificate.items():
        table.add_row(
            target_lang,
            *(estimate(body[name]) for name in ("before", "after", "random")),
            f"{body['selected_documents']:,}",
            _heldout(body),
        )
    return table


def _heldout(body: dict[str, Any]) -> str:
    """Say how many documents were held out, and their worth without copies."""
    documents = body["heldout_documents"]
    effective = body.get("heldout_effective", documents)  # runs of older versions did not count copies
    return f"{documents:,}" if effective == documents else f"{documents:,} (worth {effective:,.0f})"


def estimate(value: dict[str, float] | None, name: str = "jsd", digits: int = 3) -> str:
    """Write a number with its interval."""
    if value is None:
        return "–"
    middle, low, high = (f"{value[one]:.{digits}f}" for one in (name, "low", "high"))
    return f"{middle} [{low}, {high}]"
