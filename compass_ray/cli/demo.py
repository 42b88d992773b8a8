"""``compass-ray demo``: the whole path on a small corpus that the package carries."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from compass_ray.cli.adapted import adapted_as_json, print_adapted
from compass_ray.cli.options import Address, AsJson, Overrides, with_address
from compass_ray.cli.report import print_json, print_run, run_as_json
from compass_ray.interrupts import resumable


def command(
    output: Annotated[str, typer.Option(help="Where runs and cache go")] = "compass-demo",
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Curate a built-in corpus of 12 languages for three of them, and train adapters of two on a small base model."""
    from compass_ray import curate, load_config, train_adapters

    with as_file(files("compass_ray.demo")) as folder, resumable():
        sets = [f"output={output}", *with_address(overrides, address)]
        raw = load_demo(str(folder))
        run = curate(load_config(raw, sets))
        if not as_json:
            print_run(run)
        adapted = train_adapters(load_config(raw, [*sets, f"adapt.run={run.path}"]))
        if as_json:
            print_json({**run_as_json(run), "adapters": adapted_as_json(adapted)})
        else:
            print_adapted(adapted)


def load_demo(folder: str) -> dict[str, object]:
    """Load the demo's config, its paths made absolute."""
    import yaml

    text = Path(folder, "demo.yaml").read_text(encoding="utf-8")
    raw: dict[str, object] = yaml.safe_load(text.replace("${DEMO}", folder))
    return raw
