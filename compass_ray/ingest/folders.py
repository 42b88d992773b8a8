"""A folder as its owner wrote it: which of its files are data, and of which split.

Asked in this order: the states of ``datasets``, the card of a hub checkout, names. Whatever is not data is given back
with the reason, so that it can be counted and shown.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from compass_ray import storage
from compass_ray.errors import ConfigError
from compass_ray.ingest.card import CARD, configurations, read_card
from compass_ray.ingest.formats import in_folder, kind_of
from compass_ray.ingest.saved import SPLITS, STATE, saved_datasets
from compass_ray.ingest.splits import split_of
from compass_ray.storage import FileStat

ABOUT = "about the data"

_ABOUT = (
    "dataset_info.json", "dataset_infos.json", SPLITS, STATE, "cache-*.arrow",
    "config.json", "configuration.json", "generation_config.json", "preprocessor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "package.json", "package-lock.json", "datapackage.json", "croissant.json", "metadata.json", "manifest.json",
)  # fmt: skip
"""What stands beside the data of ``datasets``, of hub checkouts and of models, and has the suffix of data."""

_PAPERS = ("README*", "LICENSE*", "LICENCE*", "NOTICE*", "CITATION*")

_ABOUT_DATA, _NO_DATA = (
    re.compile("|".join(map(fnmatch.translate, patterns))).match for patterns in (_ABOUT, _ABOUT + _PAPERS)
)

_CARD_BYTES = 16 << 20


@dataclass
class Folder:
    """What a folder holds, by the names of its files below it.

    Attributes
    ----------
    splits : dict
        The split of every file that is data; None if it is of none.
    left : dict
        For every other file, why it is not read.
    notes : list of str
        What else a user should know.
    """

    splits: dict[str, str | None] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_folder(files: Mapping[str, FileStat], hidden: Collection[str], declared: str, where: str) -> Folder:
    """Tell data from what stands beside it.

    Cost: one read for each dataset of ``datasets`` below the folder, and one for a card.

    Parameters
    ----------
    files : mapping
        By their names below the folder.
    hidden : collection of str
        Names of files that are not among them.
    declared : str
        The format, or ``auto``.
    where : str
        Where the config has the folder, for errors.

    Raises
    ------
    ConfigError
        If the folder is a table whose log says which of its files hold.
    DataError
        If a file that says which of the others hold cannot be read, or names some that are not there.
    """
    _refuse_tables([*files, *hidden], where)
    found = Folder()
    told = saved_datasets(files) if declared in ("auto", "arrow") else None
    if told:
        found.splits, found.left = told.splits, told.stale
    if CARD in files and SPLITS not in files and STATE not in files:
        _follow_card(files, found)
    for name in files:
        data = in_folder(name, declared)
        if (_ABOUT_DATA if data else _NO_DATA)(name.rpartition("/")[2]):
            found.left[name] = ABOUT
        elif name in found.left:
            continue
        elif not data:
            found.left[name] = kind_of(name) or "no suffix"
        elif name not in found.splits:
            found.splits[name] = split_of(name)
    found.splits = {name: split for name, split in found.splits.items() if name not in found.left}
    _leave_out_loose_json(found)
    return found


def read_matches(files: Mapping[str, FileStat], pattern: str) -> Folder:
    """Tell data from what else a glob matches: what stands beside data, and what a matched state leaves out.

    A name that the glob spells is data, and so is a README where it asks for a suffix (``*.md``).
    """
    told = saved_datasets(files)
    spelled = pattern.rpartition("/")[2]
    is_about = _ABOUT_DATA if "." in spelled else _NO_DATA
    last = {name: name.rpartition("/")[2] for name in files}
    left = told.stale | {name: ABOUT for name in files if pattern and last[name] != spelled and is_about(last[name])}
    splits = {name: told.splits.get(name) or split_of(name) for name in files if name not in left}
    return Folder(splits, left)


def _follow_card(files: Mapping[str, FileStat], found: Folder) -> None:
    card = files[CARD]
    if card.size > _CARD_BYTES:
        found.notes.append(f"{CARD} is longer than {_CARD_BYTES:,} bytes and was not asked which files are data")
        return
    try:
        configs = configurations(storage.read_bytes(card.url).decode("utf-8", "replace"))
    except ValueError as exc:
        reason = " ".join(str(exc).split())
        found.notes.append(f"{CARD} was not understood ({reason:.120}), so files are told by their names")
        return
    if configs:
        told = read_card(configs, files)
        found.splits |= told.splits
        found.left |= told.left
        found.notes += told.notes


def _leave_out_loose_json(found: Folder) -> None:
    """Leave JSON files of no split out where all others have one. Such a file is about the data."""
    loose = [name for name, split in found.splits.items() if split is None]
    if len(loose) < len(found.splits) and all(name.lower().endswith(".json") for name in loose):
        for name in loose:
            del found.splits[name]
            found.left[name] = "JSON of no split"


def _refuse_tables(names: Collection[str], where: str) -> None:
    """Refuse tables of which a log, and not the folder, says which files hold: old ones lie beside them."""
    for name in names:
        *folders, last = name.split("/")
        kind = (
            "Delta" if "_delta_log" in folders
            else "Hudi" if ".hoodie" in folders
            else "Iceberg" if folders[-1:] == ["metadata"] and last.endswith(".metadata.json")
            else None
        )  # fmt: skip
        if kind:
            raise ConfigError(
                f"{where}: holds a table of {kind} ({name}), whose log says which files hold, and old ones lie beside "
                "them; write the table out as plain Parquet, or name files by a glob to read them all"
            )
