"""``compass-ray monitor CONFIG``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import estimate, print_json, results_console
from compass_ray.interrupts import resumable
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.monitored import MonitoredRun

_WINDOWS_SHOWN = 8
_NOT_JUDGED = {"insufficient": "too few", "open": "open", "stale": "too old"}
_SMALLEST_P = 0.0001
"""What is below is not known to that many digits."""

ExitCode = Annotated[
    bool, typer.Option("--exit-code", help="Exit with 10 on drift, 11 if a language has no reference usage")
]


def command(
    path: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
    exit_code: ExitCode = False,
) -> None:
    """Say whether new usage has moved away from the usage that selections or adapters were made for."""
    from compass_ray import load_config, monitor_usage

    config = load_config(path, with_address(overrides, address))
    with resumable():
        run = monitor_usage(config)
    if as_json:
        record = run.record
        print_json(
            {
                "path": run.path,
                **{name: record[name] for name in ("reference", "target_langs", "as_of", "undated", "later")},
            }
        )
    else:
        print_monitored(run)
    if exit_code and run.exit_code:
        raise typer.Exit(run.exit_code)


def print_monitored(run: MonitoredRun) -> None:
    """Print verdicts, windows, and the clusters that usage has moved between."""
    console = results_console()
    record = run.record
    console.print(_window_table(record["target_langs"]))
    for target_lang, body in record["target_langs"].items():
        for note in body["notes"]:
            console.print(f"{target_lang}: {note}", markup=False)
        drifted = [window for window in body["windows"] if window["verdict"] == "drift"]
        if drifted:
            _print_clusters(target_lang, drifted[-1], console)
    if record["undated"]:
        console.print(f"{record['undated']:,} documents without a timestamp are in no window", markup=False)
    if record["later"]:
        console.print(f"{record['later']:,} documents dated after {record['as_of']} are in no window", markup=False)
    console.print(f"monitor: {run.path}", markup=False, soft_wrap=True)


def _window_table(target_langs: dict[str, Any]) -> Table:
    table = Table(
        title="Usage against reference usage (JSD in bits, 0 is equal; AUC of vectors told apart, 0.5 is equal)",
        title_justify="left",
    )
    for heading in ("language", "verdict", "window"):
        table.add_column(heading, no_wrap=True)
    for heading in ("documents", "divergence [95 %]", "p", "AUC [95 %]", "p", "far from clusters", "alarm"):
        table.add_column(heading, justify="right", no_wrap=True)
    for target_lang, body in target_langs.items():
        first = [f"{language_name(target_lang)} ({target_lang})", body["verdict"]]
        for window in body["windows"][-_WINDOWS_SHOWN:] or [None]:
            table.add_row(*first, *(_cells(window) if window else ["–"] * 8))
            first = ["", ""]
    return table


def _cells(window: dict[str, Any]) -> list[str]:
    start, documents = window["start"], f"{window['documents']:,}"
    day = "all" if start is None else start[:10]
    divergence, novelty = window["divergence"], window["novelty"]
    if divergence is None:
        return [day, documents, *["–"] * 5, _NOT_JUDGED[window["verdict"]]]
    apart = window["separation"]
    far = f"{novelty['reference']:.1%} → {novelty['share']:.1%}"
    return [
        day,
        documents,
        estimate(divergence),
        _p_value(divergence),
        estimate(apart, "auc", 2),
        "–" if apart is None else _p_value(apart),
        far,
        "yes" if window["verdict"] == "drift" else "no",
    ]


def _p_value(found: dict[str, float]) -> str:
    value = found["p_value"]
    return f"{value:.4f}" if value >= _SMALLEST_P else f"< {_SMALLEST_P}"


def _print_clusters(target_lang: str, window: dict[str, Any], console: Console) -> None:
    table = Table(title=f"Where usage of {language_name(target_lang)} ({target_lang}) has moved", title_justify="left")
    table.add_column("cluster", max_width=40, overflow="ellipsis", no_wrap=True)
    for heading in ("before", "now"):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = any(row["exemplar"] for row in window["clusters"])
    if shown:
        table.add_column("for example", max_width=60, overflow="ellipsis", no_wrap=True)
    for row in window["clusters"]:
        shares = (f"{row[name]:.1%}" for name in ("share_before", "share"))
        table.add_row(escape(row["label"]), *shares, *([escape(row["exemplar"] or "–")] if shown else []))
    console.print(table)
