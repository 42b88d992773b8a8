"""The splits of a folder: which of its files are for training, by the names that their owner gave them.

Names follow the habits of ``datasets.load_dataset``: ``train-00000-of-00002.parquet``, ``test.jsonl``, ``dev/a.csv``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence

from compass_ray.ingest.formats import compression_of

TRAIN = "train"

_FAMILY = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "devtest"), "test"),
}
_FEW_BYTES = 100_000
_BETWEEN_WORDS = re.compile(r"[-._ \d]+")
_SHARD = re.compile(r"(.+?)[-._]\d{5}-of-\d{5}")
_NAME = re.compile(r"\w+")


class Unclear(Exception):
    """Files belong to several splits, and it is not plain which of them to read."""


def split_of(path: str) -> str | None:
    """Find the split that a path below a folder names.

    It is in lower case; None if it names none. Folders come before files, the outermost first. The name of a shard may
    be any; else it is a word for a split.

    >>> split_of("data/train_sft-00000-of-00001.parquet"), split_of("dev/a.csv"), split_of("lang=sw/part-0.parquet")
    ('train_sft', 'dev', None)
    """
    *folders, name = path.lower().split("/")
    if found := next(filter(None, map(_split_of_folder, folders)), None):
        return found
    stem = os.path.splitext(name.removesuffix(compression_of(name)))[0] or name
    shard = _SHARD.match(stem)
    return shard[1] if shard and _NAME.fullmatch(shard[1]) else _word(name)


def for_training(paths: Sequence[str], splits: Sequence[str | None], sizes: Sequence[int]) -> list[bool]:
    """Choose the files of a folder to read if nothing is asked for.

    These are all, or where they have splits those of ``train``. Names have to be plain: files have splits if they are
    of at least two, one of which is called by a known word. What is of no split is left out where it lies beside files
    for training, and read where it has a folder of its own.

    Parameters
    ----------
    paths, splits, sizes : sequences of one length
        Of each file the path below the folder, the split, and the bytes.

    Raises
    ------
    Unclear
        If no split is for training, or several (``train_sft``, ``train_gen``) are, or files of no split that lie beside
        those for training are more bytes than they.
    """
    known = {split: _family(split) for split in splits if split is not None}
    if len(known) < 2 or not any(known.values()):
        return [True] * len(splits)
    chosen = {split for split in known if _FAMILY.get(split) == TRAIN}
    if not chosen:
        chosen = {split for split, family in known.items() if family == TRAIN}
        if len(chosen) != 1:
            raise Unclear
    homes = {_home(path) for path, split in zip(paths, splits, strict=True) if split in chosen}
    beside = [split is None and _home(path) in homes for path, split in zip(paths, splits, strict=True)]
    read = sum(size for split, size in zip(splits, sizes, strict=True) if split in chosen)
    if sum(size for loose, size in zip(beside, sizes, strict=True) if loose) > read:
        raise Unclear
    return [split in chosen or (split is None and not loose) for split, loose in zip(splits, beside, strict=True)]


def asked_for(splits: Sequence[str | None], wanted: Sequence[str]) -> tuple[list[bool], list[str]]:
    """Tell which files are of one of the wanted splits.

    With that come those wanted that no file is of. A split is wanted by its own name, or by another word for it
    (``dev`` for ``validation``) where none has that name.
    """
    matched: set[str] = set()
    absent = []
    present = {split for split in splits if split is not None}
    for name in wanted:
        key = name.lower()
        found = {key} & present or {split for split in present if _FAMILY.get(key, "") == _FAMILY.get(split)}
        matched |= found
        absent += [] if found else [name]
    return [split in matched for split in splits], absent


def are_mixed(splits: Sequence[str | None]) -> bool:
    """Tell whether files are plainly of several splits."""
    known = {split for split in splits if split is not None}
    return len(known) > 1 and any(map(_family, known))


def counted(splits: Sequence[str | None], sizes: Sequence[int]) -> str:
    """Say how many files each split has: ``test (1 file, 2.0 MB), no split (1 file, 0.1 MB)``."""
    files = Counter(splits)
    bytes_of: Counter[str | None] = Counter()
    for split, size in zip(splits, sizes, strict=True):
        bytes_of[split] += size
    order = sorted(files, key=lambda split: (split is None, split or ""))
    return ", ".join(f"{split or 'no split'} ({amount(files[split], bytes_of[split])})" for split in order)


def amount(files: int, size: int) -> str:
    """Say how many files and bytes: ``2 files, 1.2 MB``, ``1 file, 2,345 bytes``."""
    held = f"{size / 1e6:,.1f} MB" if size >= _FEW_BYTES else f"{size:,} bytes"
    return f"{files:,} file{'' if files == 1 else 's'}, {held}"


def _split_of_folder(name: str) -> str | None:
    key, partition, value = name.partition("=")  # a folder of a partitioned table tells of one column
    return (value if key == "split" else None) if partition else _word(name)


def _home(path: str) -> str:
    """Find the folder that a split is one of. It is that of its folder, or else of its file."""
    folders = path.lower().split("/")[:-1]
    depth = next((depth for depth, folder in enumerate(folders) if _split_of_folder(folder)), len(folders))
    return "/".join(folders[:depth])


def _word(name: str) -> str | None:
    """Find the first word of a name that stands for a split."""
    return next((word for word in _BETWEEN_WORDS.split(name) if word in _FAMILY), None)


def _family(split: str) -> str | None:
    """Tell the family of a split: ``train``, ``validation`` or ``test``. None for another name."""
    return _FAMILY.get(_word(split) or "")
