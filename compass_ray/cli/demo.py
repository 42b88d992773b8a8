"""``compass-ray demo``: the whole path on a small corpus that the package carries."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from compass_ray.cli.options import Address, AsJson, Overrides, resumable, with_address
from compass_ray.cli.report import print_run


def command(
    output: Annotated[str, typer.Option(help="Where runs and cache go")] = "compass-demo",
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Curate a built-in corpus of 12 languages for Swahili, Hindi and Tamil."""
    from compass_ray import curate, load_config

    with as_file(files("compass_ray.demo")) as folder, resumable():
        sets = [f"output={output}", *with_address(overrides, address)]
        raw = load_demo(str(folder))
        print_run(curate(load_config(raw, sets)), as_json=as_json)


def load_demo(folder: str) -> dict[str, object]:
    """The demo's config, its paths made absolute."""
    import yaml

    text = Path(folder, "demo.yaml").read_text(encoding="utf-8")
    raw: dict[str, object] = yaml.safe_load(text.replace("${DEMO}", folder))
    return raw
