"""``compass-ray config schema|check|show``."""

from __future__ import annotations

import json

import typer
import yaml

from compass_ray.cli.options import ConfigPath, Overrides

app = typer.Typer(help="Look at and check configs.", no_args_is_help=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of a config: all fields, defaults and ranges."""
    from compass_ray import RunConfig

    typer.echo(json.dumps(RunConfig.model_json_schema(), indent=2))


@app.command()
def check(path: ConfigPath, overrides: Overrides = []) -> None:  # noqa: B006 typer copies it
    """Check CONFIG without reading any data; say all that is wrong."""
    from compass_ray import load_config

    config = load_config(path, overrides)
    roles = [source.role for source in config.sources.values()]
    counts = ", ".join(f"{roles.count(role)} {role}" for role in ("pool", "current", "usage"))
    plans = [f"strategy {config.sample.strategy}"] if config.sample else []
    plans += [f"adapters on {config.adapt.base}"] if config.adapt else []
    plans += [f"usage compared with {config.monitor.reference}"] if config.monitor else []
    typer.echo(f"{path}: good ({counts} sources; {'; '.join(plans)})")


@app.command()
def show(path: ConfigPath, overrides: Overrides = []) -> None:  # noqa: B006 typer copies it
    """Print CONFIG with all defaults filled in."""
    from compass_ray import load_config

    config = load_config(path, overrides)
    typer.echo(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True, sort_keys=False), nl=False)
