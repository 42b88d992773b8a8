"""``compass-ray registry list|show|promote|rollback|export``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from compass_ray.cli.options import AsJson
from compass_ray.cli.report import print_json, results_console
from compass_ray.languages import language_name

app = typer.Typer(help="Look at, promote, roll back and export adapters.", no_args_is_help=True)

RegistryUrl = Annotated[str, typer.Argument(help="Folder of the registry, local or s3://", metavar="REGISTRY")]
Adapter = Annotated[
    str,
    typer.Argument(
        help="[BASE/]LANG[@REF]; REF is champion (default), candidate, previous, or a version or the start of one",
        metavar="ADAPTER",
    ),
]
_PIPE_WIDTH = 160


class Form(StrEnum):
    """What ``export`` writes."""

    peft = "peft"
    merged = "merged"
    vllm = "vllm"


class Dtype(StrEnum):
    """Number type of a merged model."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@app.command("list")
def list_command(registry: RegistryUrl, as_json: AsJson = False) -> None:
    """List all versions and what their aliases are."""
    from compass_ray.pipelines.registry import list_adapters

    rows = list_adapters(registry)
    if as_json:
        print_json(rows)
        return
    table = Table(title=f"{len(rows)} adapter versions", title_justify="left")
    for heading in ("base", "language", "version", "aliases", "created", "parent"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        language = f"{language_name(row['lang'])} ({row['lang']})"
        aliases = ", ".join(row["aliases"])
        created = row["created"] or "its folder is gone"
        table.add_row(row["base"], language, row["version"], aliases, created, row["parent"] or "–")
    results_console(pipe_width=_PIPE_WIDTH, markup=False).print(table)


@app.command()
def show(registry: RegistryUrl, adapter: Adapter, as_json: AsJson = False) -> None:
    """Show where a version comes from, what it scored and which files it has."""
    from compass_ray.pipelines.registry import scores_for_people, show_adapter

    body = show_adapter(registry, adapter)
    if as_json:
        print_json(body)
        return
    facts = Table(title=f"{language_name(body['lang'])} adapter {body['version']}", title_justify="left")
    for heading in ("", " "):
        facts.add_column(heading, overflow="fold")
    base = body["base"]
    revision = f" at {base['revision']}" if base["revision"] else ""
    for name, value in (
        ("url", body["url"]),
        ("aliases", ", ".join(body["aliases"])),
        ("base", f"{base['name']}{revision}, weights {base['weights_hash']}"),
        ("created", f"{body['created']} by compass_ray {body['code_version']}"),
        ("parent", body["parent"]),
        ("selection", body["selection"]),
        *((f"documents: {name}", count) for name, count in body["documents"].items()),
        *((f"score: {name}", value) for name, value in scores_for_people(body["scores"]).items()),
    ):
        facts.add_row(name, _text(value))
    files = Table(title="Files", title_justify="left")
    files.add_column("name")
    files.add_column("bytes", justify="right")
    files.add_column("hash")
    for name, entry in body["files"].items():
        files.add_row(name, f"{entry['bytes']:,}", entry["hash"])
    console = results_console(pipe_width=_PIPE_WIDTH, markup=False)
    console.print(facts)
    console.print(files)


@app.command()
def promote(registry: RegistryUrl, adapter: Adapter) -> None:
    """Make a version the champion; the champion becomes the previous one."""
    from compass_ray.pipelines.registry import promote_adapter

    _print_aliases(promote_adapter(registry, adapter))


@app.command()
def rollback(
    registry: RegistryUrl, language: Annotated[str, typer.Argument(help="[BASE/]LANG", metavar="LANG")]
) -> None:
    """Exchange the champion of a language and the previous one."""
    from compass_ray.pipelines.registry import rollback_adapter

    _print_aliases(rollback_adapter(registry, language))


@app.command()
def export(
    registry: RegistryUrl,
    adapter: Adapter,
    output: Annotated[str, typer.Option(help="New or empty local folder")],
    form: Annotated[Form, typer.Option("--format", help="As trained; in its base; or for vLLM")] = Form.peft,
    base: Annotated[str | None, typer.Option(help="Base model: a folder or hub id; the lineage's by default")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub model")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank for vLLM: 8, 16, 32 or 64")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest change of logits, as a part of the adapter's effect (0.05)")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of a merged model; the base's by default")] = Dtype.auto,
    as_json: AsJson = False,
) -> None:
    """Write an adapter for other tools."""
    from compass_ray.pipelines.registry import export_adapter

    body = export_adapter(
        registry,
        adapter,
        form.value,
        output,
        base=base,
        revision=revision,
        rank=rank,
        tolerance=tolerance,
        dtype=dtype.value,
    )
    if as_json:
        print_json(body)
        return
    rank_text = f", rank {body['rank']}" if body["rank"] else ""
    typer.echo(f"{body['adapter']} -> {output} ({body['format']} by {body['method']}{rank_text})")
    if agreed := body["agreement"]:
        typer.echo(
            f"logits changed by {agreed['relative_error']:.2g} of the adapter's effect, "
            f"mean KL {agreed['mean_kl']:.2g} nats over {agreed['positions']} positions"
        )


def _print_aliases(body: dict[str, Any]) -> None:
    pointing = (f"{name} {body[name]}" for name in ("champion", "candidate", "previous") if body[name])
    typer.echo(f"{body['base']}/{body['lang']}: {', '.join(pointing)} (generation {body['generation']})")


def _text(value: Any) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
