"""The registry for people and jobs: list, look at, promote, roll back and export adapters.

Results are plain dicts, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compass_ray.errors import ConfigError
from compass_ray.models import find_model
from compass_ray.registry.aliases import Aliases
from compass_ray.registry.export import Dtype, Format, export, needs_base
from compass_ray.registry.scores import HEADINGS, HELDOUT, score_lines
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion


def list_adapters(url: str) -> list[dict[str, Any]]:
    """List every version in a registry by base and language, oldest first.

    Each comes with the aliases that point to it. A version that an alias points to and that is gone comes last,
    ``created`` null.
    """
    registry = Registry(url)
    rows = []
    for base, lang in registry.places():
        rows += [_summary(version) for version in registry.history(base, lang)]
        for version, aliases in registry.dangling(base, lang).items():
            gone: dict[str, Any] = {
                "version": version,
                "aliases": aliases,
                "created": None,
                "parent": None,
                "scores": {},
            }
            rows.append({"base": base, "lang": lang, **gone})
    return rows


def show_adapter(url: str, ref: str) -> dict[str, Any]:
    """Read the lineage of one adapter, ``[BASE/]LANG[@REF]``, with its folder and aliases."""
    version = Registry(url).open(ref)
    return {"url": version.url, "aliases": list(version.aliases), **asdict(version.lineage)}


def scores_for_people(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Say in words what a lineage's scores hold: usage, the trained mixture, other languages, then the rest."""
    rest = dict(scores)
    told: dict[str, Any] = {}
    if isinstance(rest.get(HELDOUT), list):  # versions of older releases have a mapping by language
        for line in score_lines(rest.pop(HELDOUT)):
            named = zip(HEADINGS[1:], line.cells()[1:], strict=True)
            told[line.measured] = ", ".join(f"{name} {value}" for name, value in named if value != "–")
    return {**told, **rest}


def promote_adapter(url: str, ref: str) -> dict[str, Any]:
    """Make a version the champion; the champion becomes the previous one.

    Raises
    ------
    RegistryError
        If there is no such version.
    AliasMoved
        If somebody else moved the aliases at the same time.
    """
    registry = Registry(url)
    base, lang = registry.locate(ref)
    return _moved(base, lang, registry.promote(ref))


def rollback_adapter(url: str, base_lang: str) -> dict[str, Any]:
    """Exchange champion and previous of ``[BASE/]LANG``; see :func:`promote_adapter`."""
    if "@" in base_lang:
        raise ConfigError(f"'{base_lang}': a rollback returns to the previous champion; give [BASE/]LANG alone")
    registry = Registry(url)
    base, lang = registry.locate(base_lang)
    return _moved(base, lang, registry.rollback(base, lang))


def export_adapter(
    url: str,
    ref: str,
    form: Format,
    output: str,
    *,
    base: str | None = None,
    revision: str | None = None,
    rank: int | None = None,
    tolerance: float | None = None,
    dtype: Dtype = "auto",
) -> dict[str, Any]:
    """Write an adapter as a local folder that other tools load; see ``registry.export``.

    Parameters
    ----------
    form : {"peft", "merged", "vllm"}
    base, revision : str or None
        The base model: a folder, or a hub id and its commit. By default the hub model of the lineage, if it came from
        a hub and is needed.

    Raises
    ------
    ConfigError
        If the arguments do not fit together.
    IncompatibleAdapter
        If the base is not the adapter's, or the adapter does not fit the form.
    """
    if "://" in output:
        raise ConfigError(f"--output {output}: exports are written to a local folder; copy it from there")
    version = Registry(url).open(ref)
    found = _base(version, form, base, revision, rank)
    made = export(version, form, Path(output).expanduser(), found, rank, tolerance, dtype)
    return {"path": output, "adapter": str(version), **asdict(made)}


def _base(
    version: AdapterVersion, form: Format, base: str | None, revision: str | None, rank: int | None
) -> Path | None:
    trained_on = version.lineage.base
    if base is None:
        if trained_on.revision is None or not needs_base(version, form, rank):
            return None
        base, revision = trained_on.name, revision or trained_on.revision
    elif base == trained_on.name:
        revision = revision or trained_on.revision
    return find_model(base, revision, field="export.base", marker="config.json", kind="base")


def _summary(version: AdapterVersion) -> dict[str, Any]:
    lineage = version.lineage
    return {
        "base": lineage.base.key,
        "lang": lineage.lang,
        "version": lineage.version,
        "aliases": list(version.aliases),
        "created": lineage.created,
        "parent": lineage.parent,
        "scores": lineage.scores,
    }


def _moved(base: str, lang: str, aliases: Aliases) -> dict[str, Any]:
    return {"base": base, "lang": lang, **asdict(aliases)}
