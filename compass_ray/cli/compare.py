"""``compass-ray compare CONFIG --strategies a,b,c``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import estimate, print_json, results_console
from compass_ray.interrupts import resumable
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.compare import Compared

_LANGUAGES_SHOWN = 3


def command(
    path: ConfigPath,
    strategies: Annotated[str, typer.Option(help="Strategies by comma; see sample.strategy")] = "kl,deficit,random",
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Select by several strategies over the same clusters, and print their certificates side by side."""
    from compass_ray import load_config
    from compass_ray.pipelines.compare import compare

    config = load_config(path, with_address(overrides, address))
    with resumable():
        rows = compare(config, [name.strip() for name in strategies.split(",")])
        if as_json:
            print_json([asdict(row) for row in rows])
        else:
            _print(rows, config.embed.model)


def _print(rows: list[Compared], encoder: str) -> None:
    from compass_ray.pipelines.compare import label

    console = results_console()
    for target_lang in dict.fromkeys(row.target_lang for row in rows):
        mine = [row for row in rows if row.target_lang == target_lang]
        before = estimate(mine[0].certificate["before"])
        title = (
            f"{language_name(target_lang)} ({target_lang}): distance from held-out usage, JSD in bits; before: {before}"
        )
        table = Table(title=title, title_justify="left")
        table.add_column("strategy", no_wrap=True)
        for heading in ("after", "documents", "passed over", "languages", "most from", "seconds"):
            table.add_column(heading, justify="right", no_wrap=heading != "most from")
        for row in mine:
            most = list(row.languages.items())[:_LANGUAGES_SHOWN]
            table.add_row(
                label(row.strategy, encoder),
                estimate(row.certificate["after"]),
                f"{row.certificate['selected_documents']:,}",
                f"{row.certificate['near_duplicates']:,}",
                f"{len(row.languages)} (≈{row.effective_languages:.1f})",
                ", ".join(f"{lang} {share:.0%}" for lang, share in most),
                f"{row.seconds:.1f}" if row.seconds else "reused",
            )
        console.print(table)
