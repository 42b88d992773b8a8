"""The card of a dataset on the Hugging Face hub, ``README.md``: its header says which files are which split.

Patterns are those of somebody else: they are matched with the files that were listed, and become no paths.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from compass_ray.errors import DataError
from compass_ray.ingest.plainyaml import load_plain_yaml
from compass_ray.ingest.splits import TRAIN, split_of
from compass_ray.remote import globs

CARD = "README.md"
_HEADER = re.compile(r"---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_CONFIGS = re.compile(r"^configs:.*(?:\r?\n(?:[ \t#-].*)?)*", re.MULTILINE)
_MOST_CHARACTERS = 1 << 20
_SHOWN = 3


@dataclass(frozen=True)
class DataFiles:
    """One configuration of a card: patterns of files, relative to the folder, by split.

    Attributes
    ----------
    patterns : tuple of (split, pattern), or None
        None if all files below ``folder`` are data, of the split that their names tell.
    default : bool
        Whether it is the one to read where none is asked for.
    """

    name: str
    folder: str
    patterns: tuple[tuple[str, str], ...] | None
    default: bool


@dataclass
class Reading:
    """What a card says of files: the split of those to read, which it leaves out, and what to tell the user."""

    splits: dict[str, str | None] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def configurations(card: str) -> list[DataFiles]:
    """Read the configurations that a card declares. Empty if it declares none.

    Raises
    ------
    ValueError
        If its header has other ``configs`` than the hub knows.
    """
    header = _HEADER.match(card.removeprefix("\ufeff"))
    block = _CONFIGS.search(header[1]) if header else None
    if block is None:
        return []
    if len(block[0]) > _MOST_CHARACTERS:
        raise ValueError(f"configs: longer than {_MOST_CHARACTERS:,} characters")
    configs = load_plain_yaml(block[0])["configs"] or []
    if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
        raise ValueError("configs: expected a list of mappings")
    return [_configuration(config) for config in configs]


def read_card(configs: Collection[DataFiles], names: Collection[str]) -> Reading:
    """Find the files that the default configuration names.

    Where none is the default, those that any names. Cost: each pattern is compared with each name.

    Raises
    ------
    DataError
        If it names none of them.
    """
    found = Reading()
    chosen = [config for config in configs if config.default] or list(configs)
    absent = []
    for config in chosen:
        for split, pattern in config.patterns or [(None, f"{config.folder}**")]:
            matched = [pattern] if pattern in names else _matching(pattern, names)
            absent += [] if matched else [pattern]
            for name in matched:
                found.splits.setdefault(name, split_of(name[len(config.folder) :]) if split is None else split)
    if not found.splits:
        raise DataError(
            f"{CARD} names the data files {_some(absent)}, none of which is here; copy them too, or name files by a "
            "glob"
        )
    others = [config for config in configs if config not in chosen]
    for config in others:
        for _, pattern in config.patterns or [(None, f"{config.folder}**")]:
            found.left |= dict.fromkeys(_matching(pattern, names), f"config {config.name}")
    found.left = {name: found.left.get(name, f"not in {CARD}") for name in names if name not in found.splits}
    if len(chosen) > 1:
        found.notes.append(f"{CARD} has {len(chosen)} configs ({_some([config.name for config in chosen])}), all read")
    if absent:
        found.notes.append(f"{CARD} names {len(absent)} patterns of files that are not here ({_some(absent)})")
    return found


def _configuration(config: dict[str, Any]) -> DataFiles:
    name = str(config.get("config_name", "default"))
    folder = _relative(config.get("data_dir"), f"{name}: data_dir")
    folder += "/" if folder and not folder.endswith("/") else ""
    files = config.get("data_files")
    patterns = None if files is None else tuple(_patterns(files, name, folder))
    return DataFiles(name, folder, patterns, config.get("default") is True or name == "default")


def _patterns(files: Any, name: str, folder: str) -> list[tuple[str, str]]:
    """List split and pattern of all data files. Without a split they are for training."""
    if isinstance(files, dict):
        entries = list(files.items())
    elif isinstance(files, list) and files and all(isinstance(entry, dict) for entry in files):
        entries = [(entry.get("split"), entry.get("path")) for entry in files]
    else:
        entries = [(TRAIN, files)]
    if not all(isinstance(split, str) and split for split, _ in entries):
        raise ValueError(f"configs: {name}: data_files: expected a split with a path, found {files!r:.60}")
    return [
        (split.lower(), folder + _relative(path, f"{name}: data_files"))
        for split, paths in entries
        for path in (paths if isinstance(paths, list) else [paths])
    ]


def _relative(path: Any, where: str) -> str:
    if path is None and where.endswith("data_dir"):
        return ""
    if not isinstance(path, str) or not path:
        raise ValueError(f"configs: {where}: expected a path, found {path!r:.60}")
    return path.removeprefix("./")


def _matching(pattern: str, names: Collection[str]) -> list[str]:
    matches = re.compile(globs.as_regex(pattern))
    return [name for name in names if matches.fullmatch(name)]


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(f"{name:.80}" for name in names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
