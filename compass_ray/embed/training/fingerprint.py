"""Names of what a training leaves behind, so that another finds what it can use again."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

import pyarrow as pa

VERSION = 2
"""Of the code: raised by whoever changes what comes out of the same recipe."""
_PACKAGES = ("anyascii", "sentencepiece", "tokenizers", "torch", "numpy")


def fingerprint(settings: Any, texts: pa.Table) -> str:
    """Hash settings, texts, and the versions of all that works on them.

    Parameters
    ----------
    settings : Any
        Plain JSON.
    texts : pyarrow.Table
        ``records.PARALLEL``; their labels, which no training reads, do not count.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    versions = {name: version(name) for name in _PACKAGES}
    total = hashlib.blake2b(json.dumps([VERSION, versions, settings], sort_keys=True).encode(), digest_size=8)
    for name in ("corpus", "group", "lang", "text"):
        for value in texts[name].to_pylist():
            total.update(f"{value}\0".encode())
    return total.hexdigest()
