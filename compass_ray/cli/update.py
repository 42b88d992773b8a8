"""``compass-ray update CONFIG``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compass_ray.cli.adapted import score_table
from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import print_json, results_console
from compass_ray.interrupts import resumable
from compass_ray.languages import language_mix

if TYPE_CHECKING:
    from compass_ray.pipelines.updated import UpdatedRun


def command(
    path: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Update the adapters of languages whose usage has drifted; each becomes the candidate beside its champion."""
    from compass_ray import load_config, update_adapters
    from compass_ray.errors import AdaptationError
    from compass_ray.pipelines.update import updated_run

    config = load_config(path, with_address(overrides, address))
    with resumable():
        try:
            show(update_adapters(config), as_json=as_json)
        except AdaptationError:
            if (run := updated_run(config)).exists():
                show(run, as_json=as_json)  # the languages that are done all the same
            raise


def show(run: UpdatedRun, *, as_json: bool) -> None:
    """Print an update for people or programs."""
    if as_json:
        names = ("method", "languages", "unchanged", "failed", "verdicts", "registry", "base")
        print_json({"path": run.path, **{name: run.record[name] for name in names}})
    else:
        print_updated(run)


def print_updated(run: UpdatedRun) -> None:
    """Print what was trained, its scores, and which languages stay as they are."""
    console = results_console()
    if run.languages:
        console.print(score_table(f"Updated by {run.record['method']}: held-out text, base → candidate", run))
    for lang, line in run.languages.items():
        certificate, documents = line["certificate"], line["documents"]
        how = "goes on from" if line["goes_on"] else "is new, beside"
        console.print(
            f"{lang}: candidate {line['version'][:12]} {how} champion {line['champion'][:12]}; trained on "
            f"{documents['train']:,} documents; selected: {language_mix(certificate['languages'])}",
            markup=False,
            soft_wrap=True,
        )
        if line["missing"]:
            console.print(
                f"{lang}: {line['missing']:,} documents that the champion was trained on are in no source any more",
                markup=False,
                soft_wrap=True,
            )
        for note in certificate["notes"]:
            console.print(f"{lang}: {note}", markup=False, soft_wrap=True)
    for lang, why in run.failed.items():
        console.print(f"{lang}: not updated: {why}", markup=False, soft_wrap=True)
    for lang, why in run.unchanged.items():
        console.print(f"{lang}: stays as it is: {why}", markup=False, soft_wrap=True)
    if not run.languages and not run.failed:
        console.print("nothing was updated", markup=False)
    console.print(f"update: {run.path}", markup=False, soft_wrap=True)
