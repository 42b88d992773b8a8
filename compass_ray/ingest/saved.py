"""Folders that ``datasets`` wrote with ``save_to_disk``: their own files say which of the others hold.

``state.json`` names the data files of a dataset, and a folder may hold stale ones beside them; ``dataset_dict.json``
names the splits, a folder each. Both come from somebody else: names are looked up among the files that were listed,
and become no paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compass_ray import storage
from compass_ray.errors import DataError
from compass_ray.ingest.splits import split_of
from compass_ray.storage import FileStat

STATE, SPLITS = "state.json", "dataset_dict.json"
_MOST_BYTES = 64 << 20
_SHOWN = 80
_SPLIT = re.compile(r"\w+")


@dataclass
class Told:
    """What the files of a folder tell of the others, by their names below it.

    Attributes
    ----------
    splits : dict
        The split of files that hold.
    stale : dict
        For files that do not, which file leaves them out.
    """

    splits: dict[str, str | None] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)


def saved_datasets(files: Mapping[str, FileStat]) -> Told:
    """Read what the states of all datasets below a folder tell. Cost: one read for each dataset and each set of splits.

    Parameters
    ----------
    files : mapping
        By their names below the folder.

    Raises
    ------
    DataError
        If a state cannot be read, or names a file that is not there.
    """
    told = Told()
    tables: dict[str, list[str]] = {}
    for name in files:
        if name.endswith(".arrow"):
            tables.setdefault(_beside(name), []).append(name)
    for name, body in _read(files, [folder + STATE for folder in tables if folder + STATE in files]):
        _tell_state(name, body, files, tables[_beside(name)], told)
    for name, body in _read(files, [name for name in files if _last(name) == SPLITS]):
        _tell_splits(name, body, files, told)
    return told


def _tell_state(name: str, body: dict[str, Any], files: Mapping[str, FileStat], tables: list[str], told: Told) -> None:
    where = files[name].url
    if body.get("_indices_data_files"):
        raise DataError(
            f"{where}: an old dataset whose rows are picked by a file of indices, which is not read; load it with "
            "datasets and save it again"
        )
    entries = body.get("_data_files")
    names = [entry["filename"] for entry in entries if _is_file(entry)] if isinstance(entries, list) else []
    if not isinstance(entries, list) or len(set(names)) < len(entries):
        raise DataError(f"{where}: expected _data_files, a list of files by name, each once; save the dataset again")
    beside = _beside(name)
    if absent := [entry for entry in names if beside + entry not in files]:
        raise DataError(
            f"{where}: {len(absent)} of {len(names)} data files that it names are not there, such as "
            f"{absent[0]!r:.{_SHOWN}}; copy the folder again, whole"
        )
    kept = _SPLIT.match(body["_split"]) if isinstance(body.get("_split"), str) else None
    split = split_of(beside) or (kept[0].lower() if kept else None)  # both halves of a split dataset keep its old name
    told.splits.update({beside + entry: split for entry in names})
    told.stale.update({table: f"not in {name}" for table in tables if table not in told.splits})


def _tell_splits(name: str, body: dict[str, Any], files: Mapping[str, FileStat], told: Told) -> None:
    splits = body.get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, str) and split for split in splits):
        raise DataError(f"{files[name].url}: expected splits, a list of names; save the dataset again")
    start = _beside(name)
    below = {other: other[len(start) :].split("/")[0] for other in files if other.startswith(start)}
    below = {other: folder for other, folder in below.items() if other != start + folder}
    if absent := sorted(set(splits) - set(below.values())):
        raise DataError(
            f"{files[name].url}: names the split {absent[0]!r:.{_SHOWN}}, whose folder is not there; copy the folder "
            "again, whole"
        )
    for other, folder in below.items():
        if folder not in splits:
            told.stale[other] = f"not in {name}"
        elif other not in told.stale:
            told.splits[other] = folder.lower()


def _read(files: Mapping[str, FileStat], names: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    def read(name: str) -> tuple[str, dict[str, Any]]:
        file = files[name]
        if file.size > _MOST_BYTES:
            raise DataError(f"{file.url}: {file.size:,} bytes, above {_MOST_BYTES:,}; save the dataset again")
        try:
            body = json.loads(storage.read_bytes(file.url))
        except (ValueError, RecursionError) as exc:
            raise DataError(f"{file.url}: not JSON, so which files hold cannot be told: {exc}; save it again") from exc
        if not isinstance(body, dict):
            raise DataError(f"{file.url}: expected an object, found {type(body).__name__}; save the dataset again")
        return name, body

    return storage.in_parallel(read, names)


def _is_file(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("filename"), str)


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _beside(name: str) -> str:
    """Find what names of files beside one begin with."""
    folder, slash, _ = name.rpartition("/")
    return folder + slash
